"""The input of a person's own script: what it may be given, what it gives, and its messages."""

import ast
import inspect
import itertools
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import ba_dist
from ba_dist.api.words import parameters
from ba_dist.comm import start
from ba_dist.errors import ConfigError, DataError, UserError
from ba_dist.health.script_watchdog import astray
from ba_dist.health.watchdog import ACTIVITIES, Sign
from ba_dist.rules.keys import Purpose, combine
from tests import pictures

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-script.md").read_text()
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 8, 6, 3), np.uint8)
LABELS = np.arange(50) % 5
COUNT = map(np.uint8, itertools.count())
ARGUMENTS = {"batch_size": 8, "multiplicity": 2, "seed": 3}


class Objects:
    """Gives the arrays one at a time."""

    def __init__(self, pixels=PIXELS, labels=LABELS):
        self.pixels, self.labels = pixels, labels

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        return self.pixels[i], self.labels[i]


def make(images=PIXELS, labels=LABELS, **changes):
    return ba_dist.BatchAugmentation(images, labels, **{"comm": start(), **ARGUMENTS, **changes})


def batches_of(dataset):
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def samples_of(step, epoch=0):
    """The samples of a step of 8, from the order alone."""
    return ba_dist.Permutation(50, 3, epoch)(np.arange(8 * step, 8 * step + 8))


def drop_a_row(image, rng):
    image[rng.integers(0, 8)] = rng.integers(0, 256, 3)
    return image


# --- what it gives --------------------------------------------------------------------------------


def test_evaluation_sees_images_exactly_as_training_does():
    ba = make(multiplicity=1)
    ids = samples_of(0)
    ((trained, labels),) = batches_of(ba.train(1))
    assert np.array_equal(labels, LABELS[ids])
    assert np.array_equal(trained, ba.transform(PIXELS[ids]))
    evaluated = batches_of(ba.evaluation(PIXELS[ids], LABELS[ids], batch_size=5))
    assert [len(images) for images, _ in evaluated] == [5, 3]
    assert np.array_equal(trained, np.concatenate([images for images, _ in evaluated]))
    assert np.array_equal(labels, np.concatenate([labels for _, labels in evaluated]))
    expected = (PIXELS[ids] / 255 - PIXELS.mean((0, 1, 2)) / 255) / (PIXELS / 255).std((0, 1, 2))
    assert np.abs(trained - expected).max() < 1e-5
    assert np.allclose(ba.mean, PIXELS.mean((0, 1, 2)) / 255) and len(ba.std) == 3


def test_pixels_as_they_are_lie_in_0_to_1():
    ba = make(multiplicity=1, standardise=False)
    ((trained, _),) = batches_of(ba.train(1))
    assert np.abs(trained - PIXELS[samples_of(0)] / 255).max() < 1e-6
    assert (ba.mean, ba.std) == ((0.0,) * 3, (1.0,) * 3)


def test_a_channel_without_contrast_is_no_division_by_0():
    assert np.array_equal(make(PIXELS * 0).transform(PIXELS[:2] * 0), np.zeros((2, 8, 6, 3)))


def test_going_through_it_again_goes_on_and_its_length_is_known():
    ba = make(augment=ba_dist.Augment(flip=True))
    at_once, in_turn, endless = ba.train(6), ba.train(3), ba.train()
    assert len(in_turn) == 3
    expected = [images for images, _ in batches_of(at_once)]
    assert ba.steps_per_epoch == 6
    for dataset in (in_turn, endless.take(3)):
        found = [images for _ in range(2) for images, _ in batches_of(dataset)]
        assert np.array_equal(expected, found)
    later = batches_of(ba.train(2, first=4))
    assert np.array_equal(expected[4:], [images for images, _ in later])


def test_keras_trains_and_evaluates_on_it():
    ba = make(augment=ba_dist.Augment(flip=True, mixup=0.2))
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(5)])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    held_out = ba.evaluation(PIXELS, LABELS, batch_size=20)
    fitted = model.fit(ba.train(6), epochs=2, validation_data=held_out, verbose=0)
    assert len(fitted.history["val_accuracy"]) == 2
    logits = model(ba.transform(PIXELS)).numpy()
    accuracy = (logits.argmax(1) == LABELS).mean()
    assert fitted.history["val_accuracy"][-1] == pytest.approx(accuracy)
    assert model.fit(ba.train(), epochs=1, steps_per_epoch=4, verbose=0)


def test_the_average_is_exact():
    ba = make()
    assert ba.average(3, 7) == 3 / 7
    assert ba.average({"loss": 1.5, "hits": 2}, 4) == {"loss": 0.375, "hits": 0.5}


# --- what is said of it ---------------------------------------------------------------------------


def test_whoever_evaluates_alone_is_told_that_pixels_are_standardised():
    """They would measure 14 points less on `x / 255`."""
    for function in (ba_dist.input_pipeline, ba_dist.BatchAugmentation):
        assert "standardise" in inspect.getdoc(function)
    assert "**Pixels are standardised**" in PAGE


def test_the_page_says_when_batches_may_be_left_and_after_what_time_it_is_told():
    leaving = " ".join(PAGE.split("\n## Leaving early\n")[1].split("\n## ")[0].split())
    assert "may be left at any step" in leaving
    assert "All ranks must leave after the same step" in leaving
    seconds = inspect.signature(ba_dist.BatchAugmentation).parameters["stall_timeout"].default
    assert f"after `stall_timeout` seconds ({seconds:g} unless told; 0 waits for ever)" in leaving


def test_keras_fit_takes_ten_lines():
    """Statements of the page, whose calls are in the example that the parallel tests run."""
    code = PAGE.split("\n## Keras' `fit`")[1].split("```python\n")[1].split("```")[0]
    assert len(ast.parse(code).body) <= 10
    example = (ROOT / "docs" / "examples" / "fit.py").read_text()
    mine = r"ba_dist\.(\w+)|\bba\.(\w+)"
    assert set(re.findall(mine, code)) <= set(re.findall(mine, example))


# --- augmentations of one's own -------------------------------------------------------------------


def test_an_own_augmentation_gets_the_numbers_of_its_instance_and_comes_before_cutout():
    ba = make(own_augment=drop_a_row, augment=ba_dist.Augment(flip=True, cutout=2))
    plain = make(augment=ba_dist.Augment(flip=True, cutout=2), standardise=False)
    own = make(own_augment=drop_a_row, augment=ba_dist.Augment(flip=True), standardise=False)
    flipped = make(augment=ba_dist.Augment(flip=True), standardise=False)
    found = [batches_of(each.train(8)) for each in (ba, plain, own, flipped)]
    for step in range(8):
        epoch, place = divmod(step, 6)
        keys = ba_dist.augmentation_keys(
            3, epoch, samples_of(place, epoch)[None, :], np.arange(2)[:, None]
        )
        for i, key in enumerate(keys.reshape(-1)):
            seed = combine(Purpose.STREAM, key, np.uint64(11) << np.uint64(32))
            rng = np.random.Generator(np.random.PCG64(int(seed)))
            image = np.round(255 * found[3][step][0][i]).astype(np.uint8)
            expected = drop_a_row(image.copy(), rng)
            assert np.array_equal(np.round(255 * found[2][step][0][i]), expected)
            hole = np.all(found[1][step][0][i] == 0, axis=2)
            assert np.all(found[0][step][0][i][hole] == 0)
            assert np.array_equal(found[0][step][0][i][~hole], ba.transform([expected])[0][~hole])


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (lambda image, rng: image / 255, "own_augment gave float64 of shape (8, 6, 3) for"),
        (lambda image, rng: image[:4], "own_augment gave uint8 of shape (4, 6, 3) for"),
        (lambda image, rng: None, "own_augment gave NoneType of shape None for"),
        (lambda image, rng: image + next(COUNT), "for the same random numbers"),
        ("flip", "own_augment is 'flip'; expected a function"),
    ],
)
def test_an_own_augmentation_that_cannot_work_is_refused_at_once(own, message):
    with pytest.raises(UserError, match=re.escape(message)):
        make(own_augment=own)


# --- what it may be given -------------------------------------------------------------------------


def test_objects_that_give_samples_are_as_good_as_arrays():
    augment = ba_dist.Augment(pad_crop=2)
    arrays, objects = make(augment=augment), make(Objects(), None, augment=augment, classes=5)
    assert objects.mean == pytest.approx(arrays.mean) and objects.std == pytest.approx(arrays.std)
    for dataset in (lambda ba: ba.train(8), lambda ba: ba.evaluation(Objects())):
        pairs = zip(batches_of(dataset(arrays)), batches_of(dataset(objects)), strict=True)
        for (images, labels), (others, marks) in pairs:
            assert np.abs(images - others).max() < 1e-5
            assert np.array_equal(labels, marks)


@pytest.mark.parametrize("form", [pictures.make_folder, pictures.make_tfrecords])
def test_folders_and_shards_are_read_by_name(form, tmp_path):
    form(tmp_path, classes=2, per_class=6, low=16, high=24)
    data = ba_dist.Data(dataset="pictures", data_dir=str(tmp_path), image_size=12)
    augment = ba_dist.Augment(crop="random-resized", resize=14, flip=True)
    ba = make(data, None, augment=augment, batch_size=4, own_augment=lambda image, rng: image)
    assert ba.image_shape == (12, 12, 3) and ba.classes == 2
    assert [images.shape for images, _ in batches_of(ba.train(2))] == [(8, 12, 12, 3)] * 2
    found = batches_of(ba.evaluation(batch_size=3))
    assert len(found) == len(ba.evaluation(batch_size=3))
    labels = np.concatenate([labels for _, labels in found])
    assert len(labels) > 3 and set(labels) == {0, 1}
    sizes = [PIXELS[0].repeat(3, axis=0).repeat(4, axis=1), PIXELS[1].repeat(5, axis=0)]
    assert ba.transform(sizes).shape == (2, 12, 12, 3)


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": PIXELS / 255}, "images are float64; expected uint8"),
        ({"images": PIXELS[0]}, "images are [8, 6, 3]; expected [N, H, W, C]"),
        ({"images": PIXELS[:0]}, "images are empty"),
        ({"images": PIXELS.tolist()}, "images are int64; expected uint8"),
        ({"images": Objects(PIXELS / 255), "labels": None, "classes": 5}, "images[0] is float64"),
        ({"images": Objects(), "labels": None}, "classes is needed"),
        ({"images": Objects(), "labels": None, "classes": 4}, "images[4] is"),
        ({"images": ba_dist.Data(dataset="digits")}, "labels and classes are those of the dataset"),
        ({"images": ba_dist.Data(image_size=0), "labels": None}, "image_size is 0"),
        ({"labels": np.eye(5)[LABELS]}, "labels are [50, 5]; expected one integer"),
        ({"labels": LABELS + 0.5}, "labels hold 0.5; expected integers"),
        ({"labels": LABELS * np.nan}, "labels hold nan; expected integers"),
        ({"labels": LABELS[:49]}, "labels are [49], and there are 50 images"),
        ({"labels": LABELS - 1}, "labels hold -1; expected 0, 1, 2"),
        ({"labels": list("abcde") * 10}, "labels are <U1; expected integers"),
        ({"labels": None}, "labels are missing"),
        ({"classes": 4}, "labels hold 4; expected 0 … 3"),
        ({"classes": 2.5}, "classes is 2.5; expected a whole number"),
        (
            {"batch_size": 64},
            "batch_size 64 is more than the 50 training samples;"
            " the largest that works is batch_size 32",
        ),
        ({"batch_size": 40}, "batch_size 40 gives each of 1 group(s) 40 samples"),
        ({"batch_size": 8.0}, "batch_size is 8.0; expected int"),
        ({"multiplicity": 0}, "multiplicity is 0; it must be at least 1"),
        ({"standardise": "no"}, "standardise is 'no'; expected bool"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"io_threads": 0}, "io_threads is 0; it must be at least 1"),
        ({"stall_timeout": -1}, "stall_timeout is -1; it must be at least 0"),
        ({"image_size": 8, "images": ba_dist.Data(), "labels": None}, "image_size is part of Data"),
        ({"augment": {"flip": True}}, "augment is {'flip': True}; expected ba_dist.Augment"),
        ({"augment": ba_dist.Augment(cutout=-1)}, "cutout is -1; it must be at least 0"),
        ({"augment": ba_dist.Augment(cutout=7)}, "cutout is 7, more than the 8x6 pixels"),
        ({"augment": ba_dist.Augment(pad_crop=6)}, "pad_crop is 6, so a crop of 8x6 pixels may"),
        ({"augment": ba_dist.Augment(flip="yes")}, "flip is 'yes'; expected bool"),
        ({"augment": ba_dist.Augment(crop="random-resized")}, "image_size is needed"),
        ({"augment": ba_dist.Augment(mixup=0.2), "batch_size": 1}, "ghost batch"),
        ({"comm": None}, "comm is None; expected what ba_dist.start() gave"),
    ],
)
def test_arguments_that_cannot_work_are_named(changes, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        make(**changes)
    assert caught.value.agreed and "--" not in f"{caught.value}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ba: ba.train(-3), "steps is -3; it must be at least 1"),
        (lambda ba: ba.train(2.0), "steps is 2.0; expected a whole number"),
        (lambda ba: ba.train(2, first=-1), "first is -1; it must be at least 0"),
        (lambda ba: ba.evaluation(), "images are missing; only Data has"),
        (lambda ba: ba.evaluation(PIXELS / 255, LABELS), "images are float64"),
        (lambda ba: ba.evaluation(PIXELS, LABELS + 1), "labels hold 5; expected 0 … 4"),
        (lambda ba: ba.evaluation(PIXELS, LABELS, batch_size=0), "batch_size is 0"),
        (lambda ba: ba.evaluation(PIXELS[:, 1:], LABELS), "expected [N, 8, 6, 3] as in training"),
        (lambda ba: ba.transform(PIXELS[:, 1:]), "8x6x3"),
        (lambda ba: ba.transform(PIXELS[0]), "images are [8, 6, 3]"),
    ],
)
def test_calls_that_cannot_work_are_named(call, message):
    with pytest.raises((ConfigError, DataError), match=re.escape(message)) as caught:
        call(make())
    assert "--" not in f"{caught.value}"


def test_commands_keep_their_flags():
    text = "--batch-size 3: `ba-dist train x --batch-size 4`, --seed"
    assert parameters(text) == "batch_size 3: `ba-dist train x --batch-size 4`, seed"


# --- who is waited for in vain --------------------------------------------------------------------

WAITING, STEP, LEFT = map(ACTIVITIES.index, ("waiting for input", "in the step", "leaving"))


@pytest.mark.parametrize(
    ("asker", "answers", "silent", "expected"),
    [
        ("waiting for input", {1: Sign(3, LEFT, 9.0)}, [], {1: "left after step 3"}),
        ("waiting for input", {1: Sign(3, STEP, 9.0)}, [], {1: "took the batch of step 3 9 s ago"}),
        ("waiting for input", {1: Sign(3, STEP, 1.0)}, [], {}),
        ("waiting for input", {}, [1], {1: "does not answer: stopped, hung or gone"}),
        (
            "waiting for input",
            {1: Sign(5, WAITING, 9.0), 2: Sign(3, LEFT, 9.0)},
            [],
            {2: "left after step 3"},
        ),
        ("leaving", {1: Sign(5, LEFT, 9.0)}, [], {}),
        ("leaving", {1: Sign(5, STEP, 9.0)}, [], {}),
        ("leaving", {1: Sign(6, STEP, 9.0)}, [], {1: "took the batch of step 6 9 s ago"}),
        ("leaving", {1: Sign(6, STEP, 1.0)}, [], {}),
        ("leaving", {}, [1], {}),
    ],
)
def test_whom_a_script_waits_for_in_vain(asker, answers, silent, expected):
    assert dict(astray(answers, silent, asker, step=5, timeout=8.0)) == expected
