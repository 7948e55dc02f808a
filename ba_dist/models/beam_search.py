"""Beam search: the likeliest sequences of a network that gives one token after the other.

Shape suffixes: n sentences, k hypotheses of each, t tokens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

# (last token of each hypothesis int32 [n·k], its position, state) → (logits [n·k, vocabulary],
# state). A state is any nest of tensors with n·k rows.
Step = Callable[[Any, Any, Any], tuple[Any, Any]]

_NEVER = -1e30  # a log probability below all others, but no infinity, which arithmetic makes NaN of


class _Search(NamedTuple):
    """Where a search stands.

    `alive` int32 [n, k, t] and `alive_logs` [n, k] are hypotheses without an end; `done` and
    `scores` those with one, by the score with its penalty.
    """

    at: Any
    alive: Any
    alive_logs: Any
    done: Any
    scores: Any
    state: Any


def beam_search(
    step: Step,
    state: Any,
    longest: Any,
    *,
    begin: int,
    end: int,
    beam: int = 4,
    penalty: float = 0.6,
    never: tuple[int, ...] = (),
) -> tuple[Any, Any]:
    """The best finished hypothesis of each sentence.

        score(Y) = log p(Y) / ((5 + |Y|) / 6)^penalty      |Y| counts the end

    A search goes on until no hypothesis without an end can become better than the best one with an
    end: log p only falls, and the penalty is largest for the longest one.

    Args:
        step: gives the logits of the next token.
        state: of the first step, with n·beam rows; those of a sentence are consecutive and alike.
        longest: int32 [n], tokens that a hypothesis has at most, its end included, at least 1.
        begin: the token before the first one.
        end: the token that ends a hypothesis.
        beam: hypotheses that are kept.
        penalty: of short ones.
        never: tokens that no hypothesis has.

    Returns:
        tokens: int32 [n, max(longest)], with the end, and 0 behind it.
        scores: [n].

    Source: Wu et al. 2016, arXiv:1609.08144, section 7 (without its coverage penalty); the values
    are those of Vaswani et al. 2017, section 6.1.
    """
    count, most = tf.shape(longest)[0], tf.reduce_max(longest)

    def going_on(at: Any, alive: Any, alive_logs: Any, done: Any, scores: Any, state: Any) -> Any:
        best_to_come = alive_logs[:, 0] / _lengths(longest, penalty, scores.dtype)
        return (at < most) & tf.reduce_any((best_to_come > scores[:, 0]) & (at < longest))

    def once(*parts: Any) -> Any:
        return _advance(
            _Search(*parts),
            step,
            longest,
            begin=begin,
            end=end,
            penalty=penalty,
            never=never,
        )

    logits, _ = step(tf.fill([count * beam], begin), tf.constant(0), state)  # only for its dtype
    dtype = logits.dtype if logits.dtype.size >= 4 else tf.float32
    none = tf.fill((count, beam), tf.constant(_NEVER, dtype))
    # All hypotheses of a sentence begin alike: only the first of them counts.
    first = tf.concat([tf.zeros((count, 1), dtype), none[:, 1:]], 1)
    empty = tf.zeros((count, beam, most), tf.int32)
    found = _Search(
        *tf.while_loop(
            going_on,
            once,
            _Search(tf.constant(0), empty, first, empty, none, state),
            parallel_iterations=1,
        )
    )
    return found.done[:, 0], found.scores[:, 0]


def _advance(
    now: _Search,
    step: Step,
    longest: Any,
    *,
    begin: int,
    end: int,
    penalty: float,
    never: tuple[int, ...],
) -> _Search:
    """One more token of every hypothesis."""
    count, beam, most = tf.unstack(tf.shape(now.alive))
    width = now.alive.shape[1]
    last = tf.where(now.at > 0, now.alive[:, :, tf.maximum(now.at - 1, 0)], begin)
    logits, state = step(tf.reshape(last, [-1]), now.at, now.state)
    logs = tf.nn.log_softmax(tf.cast(logits, now.scores.dtype))
    vocabulary = logs.shape[-1]
    tokens = tf.range(vocabulary)
    allowed = tf.reduce_all(tokens[:, None] != tf.constant(never or (-1,), tf.int32), 1)
    # What may not grow any more must end here.
    allowed = allowed & ((tokens == end)[None, :] | (now.at + 1 < longest)[:, None])
    logs = tf.reshape(logs, (count, beam, vocabulary)) + now.alive_logs[:, :, None]
    no = tf.constant(_NEVER, logs.dtype)
    logs = tf.where(allowed[:, None, :], logs, no)
    # Of twice as many the best, since up to half of them have an end.
    wanted = min(2 * width, width * vocabulary)
    values, places = tf.math.top_k(tf.reshape(logs, (count, beam * vocabulary)), wanted)
    parents, chosen = places // vocabulary, places % vocabulary
    here = tf.range(most)[None, None, :] == now.at
    grown = tf.where(here, chosen[:, :, None], tf.gather(now.alive, parents, batch_dims=1))
    ended = chosen == end
    finished = values / _lengths(now.at + 1, penalty, values.dtype)
    scores = tf.concat([now.scores, tf.where(ended, finished, no)], 1)
    done = tf.concat([now.done, grown], 1)
    scores, kept = tf.math.top_k(scores, width)
    alive_logs, staying = tf.math.top_k(tf.where(ended, no, values), width)
    rows = tf.gather(parents, staying, batch_dims=1) + tf.range(count)[:, None] * beam
    return _Search(
        now.at + 1,
        tf.gather(grown, staying, batch_dims=1),
        alive_logs,
        tf.gather(done, kept, batch_dims=1),
        scores,
        tf.nest.map_structure(lambda x: tf.gather(x, tf.reshape(rows, [-1])), state),
    )


def _lengths(tokens: Any, penalty: float, dtype: Any) -> Any:
    """((5 + tokens) / 6)^penalty."""
    return ((5 + tf.cast(tokens, dtype)) / 6) ** penalty
