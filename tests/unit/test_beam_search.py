"""Beam search finds what an exhaustive search finds, and what a plain one of its width finds."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from ba_dist.models.beam_search import beam_search

BEGIN, END, NEVER, VOCABULARY = 0, 1, 2, 5


def table(seed, most):
    """log p(token | token before, position), float64 [most, before, token]; no two are alike."""
    logits = np.random.default_rng(seed).normal(size=(most, VOCABULARY, VOCABULARY)) * 2
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def run(tables, longest, beam, penalty):
    """The state is which sentence a row is of, so rows that are mixed up are found out."""
    stacked = tf.constant(np.stack(tables))

    def step(tokens, at, state):
        history = state["tokens"]
        here = tf.range(history.shape[1])[None, :] == at
        history = tf.where(here, tokens[:, None], history)
        # Every token depends on all before it: on the sum of what the tables say along the way.
        logits = tf.gather_nd(
            stacked, tf.stack([state["sentence"], tf.fill(tf.shape(tokens), at), tokens], 1)
        )
        sums = tf.cast(tf.reduce_sum(history, 1), tf.float64)[:, None]
        return logits + 0.3 * tf.sin(sums * tf.range(VOCABULARY, dtype=tf.float64)), {
            **state,
            "tokens": history,
        }

    rows = len(tables) * beam
    state = {
        "sentence": tf.repeat(tf.range(len(tables)), beam),
        "tokens": tf.zeros((rows, max(longest)), tf.int32),
    }

    @tf.function(autograph=False)
    def search():
        return beam_search(
            step, state, tf.constant(longest), begin=BEGIN, end=END, beam=beam, penalty=penalty,
            never=(BEGIN, NEVER),
        )  # fmt: skip

    tokens, scores = search()
    return [row[: list(row).index(END)].tolist() for row in tokens.numpy()], scores.numpy()


def log_p(table, before, at, history):
    logits = table[at, before] + 0.3 * np.sin(sum(history) * np.arange(VOCABULARY))
    return logits - np.log(np.exp(logits).sum())


def score(table, tokens, penalty):
    total, before, history = 0.0, BEGIN, [BEGIN]
    for at, token in enumerate([*tokens, END]):
        total += log_p(table, before, at, history)[token]
        before = token
        history.append(token)
    return total / ((5 + len(tokens) + 1) / 6) ** penalty


def exhaustive(table, most, penalty):
    words = [t for t in range(VOCABULARY) if t not in (BEGIN, END, NEVER)]
    every = (list(w) for n in range(most) for w in itertools.product(words, repeat=n))
    return max(every, key=lambda tokens: score(table, tokens, penalty))


def plain(table, most, beam, penalty):
    """A beam search in a few lines of Python: no graph, no early end."""
    alive, done = [(0.0, [])], []
    for at in range(most):
        grown = []
        for total, tokens in alive:
            logs = log_p(table, tokens[-1] if tokens else BEGIN, at, [BEGIN, *tokens])
            for token in range(VOCABULARY):
                if token in (BEGIN, NEVER) or (at + 1 == most and token != END):
                    continue
                grown.append((total + logs[token], [*tokens, token]))
        best = sorted(grown, key=lambda pair: -pair[0])[: 2 * beam]
        done += [
            (total / ((5 + len(t)) / 6) ** penalty, t[:-1]) for total, t in best if t[-1] == END
        ]
        alive = [pair for pair in best if pair[1][-1] != END][:beam]
    return max(done)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_a_wide_beam_is_an_exhaustive_search(penalty):
    longest = [5, 3, 1]
    tables = [table(seed, 5) for seed in range(3)]
    found, scores = run(tables, longest, 64, penalty)
    wanted = [exhaustive(t, n, penalty) for t, n in zip(tables, longest, strict=True)]
    assert found == wanted
    expected = [score(t, w, penalty) for t, w in zip(tables, wanted, strict=True)]
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_the_penalty_makes_translations_longer():
    tables = [table(seed, 6) for seed in range(20)]
    lengths = [
        sum(len(tokens) for tokens in run(tables, [6] * 20, 4, penalty)[0])
        for penalty in (0.0, 3.0)
    ]
    assert lengths[0] < lengths[1]


@pytest.mark.parametrize("beam", [1, 2, 4])
def test_a_narrow_beam_finds_what_a_plain_one_finds(beam):
    """Sentences of different lengths, side by side, end when they end alone."""
    longest = [2 + seed % 6 for seed in range(24)]
    tables = [table(seed, 7) for seed in range(24)]
    found, scores = run(tables, longest, beam, 0.6)
    wanted = [plain(t, n, beam, 0.6) for t, n in zip(tables, longest, strict=True)]
    assert found == [tokens for _, tokens in wanted]
    np.testing.assert_allclose(scores, [total for total, _ in wanted], rtol=1e-12)
    exact = [exhaustive(t, n, 0.6) for t, n in zip(tables, longest, strict=True)]
    assert beam > 1 or found != exact, "a beam of one would be enough: nothing was searched"
