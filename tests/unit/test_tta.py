"""Test-time augmentation: the mean answer over augmented copies of each validation sample."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist import evaluate, experiment
from ba_dist.comm import start
from ba_dist.config import Config, override
from ba_dist.data.batch import make
from ba_dist.data.catalog import open_source
from ba_dist.data.sources import ArraySource, ImageInfo
from ba_dist.errors import ConfigError, CorruptRecord
from ba_dist.evaluate import Augmented, Evaluator, Scores
from ba_dist.evaluate_run import _augmented, _check_tta
from ba_dist.rules.keys import Purpose, augmentation_keys, evaluation_keys
from ba_dist.rules.mean_answer import MeanAnswer

from .. import pictures

NOISE = np.random.default_rng(0)
CLASSES, SAMPLES = 120, 37
INFO = ImageInfo("test", (8, 8, 3), CLASSES, (0.5, 0.4, 0.6), (0.3, 0.2, 0.25))
IMAGES = NOISE.integers(0, 256, (SAMPLES, 8, 8, 3)).astype(np.uint8)
SOURCE = ArraySource(INFO, IMAGES, NOISE.integers(0, CLASSES, SAMPLES), "digest")
RECIPE = {"pad_crop": 2, "flip": True, "cutout": 4, "jitter": 0.4, "seed": 5}
NONE = {"pad_crop": 0, "flip": False, "cutout": 0, "jitter": 0.0}
MIXED = {"mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1}
NAMES = ["val_top1", "val_loss", "val_top5"]


def config(**changes):
    return override(Config("tta"), {**RECIPE, **changes})


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = keras.layers.ReLU()(keras.layers.Conv2D(8, 3, strides=2)(images))
    network = keras.Model(images, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x)))
    network.get_layer(index=-1).kernel.assign(network.get_layer(index=-1).kernel * 3)
    return network


def evaluator(model, **changes):
    return Evaluator(experiment.task_of(config(**changes), INFO), model, SOURCE, comm=start())


def copies(count, average="probabilities", **changes):
    made = config(**changes)
    return Augmented(experiment.unmixed(made, INFO), made.run.seed, count, average)


def scores(found):
    ids, table = found.gather(start(), NAMES)
    assert ids.tolist() == list(range(SAMPLES))
    return np.stack([table[name] for name in NAMES])


def reference(model, count, average):
    """[metric, sample] in float64, one sample and one copy at a time."""
    maker = experiment.task_of(config(), INFO)
    found = []
    for i in range(SAMPLES):
        answers = []
        for copy in range(count):
            keys = evaluation_keys(5, np.array([i]), copy)
            made = make(maker, [IMAGES[i]], SOURCE.labels[i : i + 1], keys, ghost_batch=1)
            answers.append(model(made["images"], training=False).numpy()[0].astype(np.float64))
        answers = np.array(answers)
        exponents = np.exp(answers - answers.max(1, keepdims=True))
        shares = exponents / exponents.sum(1, keepdims=True)
        if average == "logits":
            mean = np.exp(answers.mean(0))
            shares = (mean / mean.sum())[None]
        mean, label = shares.mean(0), SOURCE.labels[i]
        place = (mean > mean[label]).sum()
        found.append([place == 0, -np.log(mean[label]), place < 5])
    return np.array(found, float).T


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_the_mean_answer_is_that_of_a_reference(model, average):
    found = scores(evaluator(model).augmented(copies(6, average)))
    np.testing.assert_allclose(found[..., 0], reference(model, 6, average), rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(found[..., 1], 1)


def test_the_two_means_differ(model):
    found = [scores(evaluator(model).augmented(copies(6, a))) for a in ("probabilities", "logits")]
    assert (found[0][1] != found[1][1]).any()


def test_one_copy_that_nothing_is_done_to_is_the_plain_sample(model):
    evaluate_it, plain = evaluator(model, **NONE), Scores(experiment.task_of(config(), INFO))
    metrics = evaluate_it(kept=plain)
    for average in ("probabilities", "logits"):
        one = scores(evaluate_it.augmented(copies(1, average, **NONE)))
        np.testing.assert_array_equal(one, scores(plain))
    assert scores(plain)[0, :, 0].sum() == round(metrics["val_top1"] * SAMPLES)
    assert scores(plain)[1, :, 0].mean() == pytest.approx(metrics["val_loss"], rel=1e-6)
    assert evaluator(model, **NONE)() == metrics, "keeping scores changes nothing"


def test_it_is_repeatable_and_in_batches_of_any_size(model, monkeypatch):
    whole = evaluator(model)
    first = scores(whole.augmented(copies(4)))
    np.testing.assert_array_equal(scores(whole.augmented(copies(4))), first)
    monkeypatch.setattr(evaluate, "_MOST_ROWS", 5)
    seen = []
    cut = scores(evaluator(model).augmented(copies(4), seen.append))
    np.testing.assert_array_equal(cut[[0, 2]], first[[0, 2]])
    np.testing.assert_allclose(cut[1], first[1], rtol=1e-5)
    assert seen == [5] * 28 + [2] * 4
    other = scores(evaluator(model).augmented(dataclasses.replace(copies(4), seed=6)))
    assert (other[1] != first[1]).any(), "the seed counts"


def pixels(model, count, monkeypatch, rows):
    """(sample, copy) → what the network sees."""
    monkeypatch.setattr(evaluate, "_MOST_ROWS", rows)
    return {
        (int(i), copy): image.tobytes()
        for ids, copy, inputs in evaluator(model)._copies(copies(count))
        for i, image in zip(ids, inputs["images"].numpy(), strict=True)
    }


def test_copies_differ_and_their_pixels_do_not_depend_on_the_batch(model, monkeypatch):
    few, many = (pixels(model, 5, monkeypatch, rows) for rows in (3, 250))
    assert few == many and len(few) == 5 * SAMPLES
    assert len(set(few.values())) == 5 * SAMPLES
    assert pixels(model, 2, monkeypatch, 250).items() <= many.items(), "more copies change none"


def test_instances_are_never_mixed_in_evaluation(model):
    maker = experiment.unmixed(config(**MIXED), INFO)
    keys, labels = evaluation_keys(5, np.arange(4), 0), SOURCE.labels[:4]
    made = make(maker, list(IMAGES[:4]), labels, keys, ghost_batch=1)
    alone = make(experiment.task_of(config(), INFO), list(IMAGES[:4]), labels, keys, ghost_batch=1)
    assert made.keys() == alone.keys() == {"images", "labels"}
    np.testing.assert_array_equal(made["images"], alone["images"])
    np.testing.assert_array_equal(made["labels"], labels)
    mixed = scores(evaluator(model, **MIXED).augmented(copies(3, **MIXED)))
    np.testing.assert_array_equal(mixed, scores(evaluator(model).augmented(copies(3))))
    inside = override(Config("tta"), {"manifold_mixup": 2.0})
    assert experiment.unmixed(inside, INFO).draw(keys, np.full((4, 3), 8), 1) == {}


def test_the_keys_are_those_of_no_training():
    assert Purpose.EVALUATION == 12
    ids = np.arange(1000)[:, None]
    keys = evaluation_keys(5, ids, np.arange(10))
    trained = [augmentation_keys(5, epoch, ids, np.arange(10)) for epoch in range(20)]
    assert keys.shape == (1000, 10) and len(np.unique(keys)) == 10_000
    assert not np.isin(keys, trained).any()


def test_images_of_any_size_of_which_one_is_torn(tmp_path, model, capsys):
    """Each copy is its own crop; who comes after a corrupt record keeps its keys."""
    pictures.make_folder(tmp_path, classes=3, per_class=4, low=16, high=20)
    changes = {"dataset": "pictures", "data_dir": str(tmp_path), "image_size": 8, "resize": 10}
    changes |= {"crop": "random-resized", "on_corrupt": "skip", "pad_crop": 0}
    made = config(**changes)
    source = open_source(made.data, "validation")
    task = experiment.task_of(made, source.info)
    torn = Path(source.where(5))
    torn.write_bytes(torn.read_bytes()[:200])
    whole = [i for i in range(len(source)) if i != 5]
    evaluate_it = Evaluator(task, model, source, comm=start(), skip=True)
    augmented = Augmented(experiment.unmixed(made, source.info), 5, 3)
    found = list(evaluate_it._copies(augmented))
    assert [copy for _, copy, _ in found] == [0, 1, 2]
    for ids, copy, inputs in found:
        assert ids.tolist() == whole
        for row, i in enumerate(whole):
            sample, label = source.decode(source.read(i))
            keys = evaluation_keys(5, np.array([i]), copy)
            alone = make(task, [sample], np.array([label]), keys, ghost_batch=1)
            np.testing.assert_array_equal(inputs["images"][row], alone["images"][0])
            assert inputs["labels"][row] == label
    ids, _ = evaluate_it.augmented(augmented).gather(start(), NAMES[:2])
    assert ids.tolist() == whole and str(torn) in capsys.readouterr().err
    with pytest.raises(CorruptRecord, match=torn.name):
        Evaluator(task, model, source, comm=start()).augmented(augmented)


@pytest.mark.parametrize(("changes", "told"), [(NONE, 1), ({**NONE, "mixup": 0.2}, 1), ({}, 0)])
def test_a_note_where_no_image_is_augmented(model, capsys, changes, told):
    _augmented(evaluator(model, **changes), copies(1, **changes), SAMPLES, start())
    assert capsys.readouterr().err.count("augments no image; all copies are the same") == told


@pytest.mark.parametrize(("count", "average"), [(0, "logits"), (2, "medians")])
def test_what_cannot_be_averaged_is_refused(count, average):
    task = experiment.task_of(config(), INFO)
    with pytest.raises(ConfigError, match=f"tta={count} and tta_average='{average}'"):
        _check_tta(Path("run"), task, count, average)


@pytest.mark.parametrize("scale", [1, 30, 1000])
def test_the_mean_of_probabilities_in_wide_ranges(scale):
    logits = NOISE.normal(0, scale, (5, 20, 7)).astype(np.float32)
    logits[:, :, 3] = -np.inf  # a class that a network excludes
    mean = MeanAnswer("probabilities")
    for copy in logits:
        mean.add(copy)
    found = mean.result()
    exponents = np.exp(logits.astype(np.longdouble) - logits.max(2, keepdims=True))
    expected = (exponents / exponents.sum(2, keepdims=True)).mean(0).astype(np.float64)
    shares = np.exp(found - found.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    np.testing.assert_allclose(shares, expected, rtol=1e-9, atol=1e-300)
    one = MeanAnswer("probabilities")
    one.add(logits[0])
    np.testing.assert_array_equal(one.result(), logits[0])


def test_answers_of_few_bits_are_averaged_in_more(model):
    half = evaluator(model)
    half._model = lambda images, training: tf.cast(model(images), tf.bfloat16)
    half._model.variables = model.variables
    answers = half._forward_copies(
        {"images": tf.zeros((2, 8, 8, 3)), "labels": tf.zeros(2, tf.int64)}
    )
    assert answers.dtype == tf.float32
