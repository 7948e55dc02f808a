"""The task of translation against plain numpy; which sentences are translated together."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist.config import Config
from ba_dist.data.sources import PairsInfo
from ba_dist.errors import UserError
from ba_dist.models.precision import set_precision
from ba_dist.models.transformer import Size, Transformer
from ba_dist.tasks.translation import Translation, translation
from ba_dist.trained import Trained
from ba_dist.translate import Translator, translate_lines

VOCABULARY, TOKENS = 13, 7
ROWS = np.array(
    [
        [
            [5, 3, 6, 7, 3, 0, 0],
            [1, 1, 2, 2, 2, 0, 0],
            [8, 9, 3, 4, 3, 0, 0],
            [1, 1, 1, 2, 2, 0, 0],
        ],
        [
            [5, 3, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0, 0],
            [3, 8, 3, 3, 9, 9, 3],
            [1, 2, 2, 3, 4, 4, 4],
        ],
        [[0] * 7] * 4,
    ],
    np.int32,
)
SHIFTED = [[2, 8, 9, 2, 4], [2, 2, 8, 2, 2, 9, 9]]


class Logits(tf.Module):
    """A network that gives these numbers, and counts how often it is asked."""

    def __init__(self, logits):
        self.variables_ = [tf.Variable(0.0, dtype=tf.float64)]
        self.logits = tf.constant(logits)
        self.asked = tf.Variable(0)

    @property
    def variables(self):
        return self.variables_

    def __call__(self, inputs, training):
        self.asked.assign_add(1)
        # Which row it is can be seen in its first two numbers.
        row = tf.cast(inputs["source_segments"][:, 2] == 0, tf.int32)
        return tf.gather(self.logits, row)


def task(smoothing=0.0):
    return Translation(PairsInfo("pairs", TOKENS, VOCABULARY, ""), smoothing)


def batch(rows):
    made = task()
    out = made.allocate(len(rows))
    for row, target in zip(rows, out, strict=True):
        made.plain(row, target)
    return made.finish_plain(out, np.zeros(len(rows), np.int64))


def test_each_sentence_begins_anew():
    inputs = {name: tensor.numpy() for name, tensor in batch(ROWS).items()}
    assert list(inputs) == list(task().schema)
    for row, shifted in enumerate(SHIFTED):
        assert inputs["shifted"][row, : len(shifted)].tolist() == shifted
    np.testing.assert_array_equal(inputs["target"], ROWS[:, 2])


def expected(logits, smoothing):
    """(loss, hits, weight) of both rows, token by token."""
    found = []
    for row, sides in enumerate(ROWS[:2]):
        total = hits = count = 0.0
        for at, (token, segment) in enumerate(zip(sides[2], sides[3], strict=True)):
            if segment:
                logs = logits[row, at] - np.log(np.exp(logits[row, at]).sum())
                labels = np.full(VOCABULARY, smoothing / VOCABULARY)
                labels[token] += 1 - smoothing
                total -= (labels * logs).sum()
                hits += logs.argmax() == token
                count += 1
        found.append((total, hits, count))
    return np.array(found)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_counts_tokens_and_no_padding(smoothing):
    logits = np.random.default_rng(0).normal(size=(2, TOKENS, VOCABULARY))
    logits[0, 1, 9] = 9.0  # one that is right
    loss = task(smoothing).loss(Logits(logits), batch(ROWS[:2]))
    total, hits, count = expected(logits, smoothing).sum(0)
    assert float(loss.total) == pytest.approx(total, rel=1e-12)
    assert float(loss.weight) == count == 12
    assert [float(x) for x in loss.metrics["token_accuracy"]] == [hits, count]
    assert hits >= 1


def test_evaluation_is_without_smoothing_and_skips_what_only_fills_up():
    logits = np.random.default_rng(1).normal(size=(2, TOKENS, VOCABULARY))
    model, made = Logits(logits), task(0.1)
    rows = np.concatenate([ROWS[:2], np.zeros((998, 4, TOKENS), np.int32)])
    inputs = batch(rows)
    answers = made.predict(model, inputs)
    assert answers.shape == (1000, TOKENS, 2)
    assert int(model.asked) == 1, "rows that only fill a batch up went through the network"
    scores = made.scores(answers, inputs)
    wanted = expected(logits, 0.0)
    for name, column in (("val_loss", 0), ("val_token_accuracy", 1)):
        above, below = (x.numpy() for x in scores[name])
        np.testing.assert_allclose(above[:2], wanted[:, column], rtol=1e-12)
        np.testing.assert_array_equal(below[:2], wanted[:, 2])
        assert not above[2:].any() and not below[2:].any()


def test_what_is_translated_together_depends_on_the_sentences_alone():
    """All of them once, the longest first, no more tokens than fit."""
    translator = Translator(None)
    lengths = [3, 900, 5, 31, 16, *[15] * 40, 4000]
    batches = translator.batches(lengths)
    assert sorted(i for part in batches for i in part) == list(range(len(lengths)))
    assert batches[0] == [len(lengths) - 1] and batches[1][0] == 1
    assert max(map(len, batches)) == 32
    assert translator.batches(lengths) == batches and translator.batches([]) == []


def test_a_translation_is_that_of_the_sentence_alone():
    """In a batch with others, longer and shorter ones, and padding."""
    set_precision("fp64")
    try:
        keras.utils.set_random_seed(0)
        model = Transformer(Size(8, 2, 1, 12), VOCABULARY)
        model.build()
        for i, variable in enumerate(model.variables):
            noise = np.random.default_rng(i).normal(size=variable.shape)
            variable.assign(variable.numpy() + noise)
        weights = model.embedding.embeddings
        weights.assign(weights.numpy() * np.where(np.arange(VOCABULARY) == 3, 0.3, 1)[:, None])
        translator = Translator(model)
        sentences = [[5, 6, 7], [9], [8, 8, 4, 5, 10, 11, 12, 6], [4, 4]]
        together = translator.translate(sentences)
        assert together == [translator.translate([sentence])[0] for sentence in sentences]
        assert len({tuple(found) for found in together}) > 1
        limits = [len(sentence) + 1 + 50 for sentence in sentences]
        assert all(len(x) < most for x, most in zip(together, limits, strict=True))
        assert all(token > 3 for found in together for token in found)
    finally:
        set_precision("fp32")


def test_another_network_translates_nothing(tmp_path):
    class Made:
        task = None

    trained = Trained(tmp_path, Made, None, (), 1)
    with pytest.raises(UserError, match="has learned something else than translation"):
        list(translate_lines(trained, ["a"]))


def test_a_run_that_has_lost_its_vocabulary(tmp_path):
    class Made:
        task = translation(Config("test"), PairsInfo("pairs", TOKENS, VOCABULARY, "0" * 64))

    trained = Trained(tmp_path, Made, Made.task.info, (), 1)
    with pytest.raises(UserError, match="the vocabulary of the run, cannot be read"):
        list(translate_lines(trained, ["a"]))
    (tmp_path / "subwords.model").write_bytes(b"another one")
    with pytest.raises(UserError, match="is not the vocabulary that the run was trained with"):
        list(translate_lines(trained, ["a"]))
