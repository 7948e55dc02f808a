"""RandAugment: what a magnitude means, and that operations are drawn evenly from keys alone."""

import numpy as np
import pytest
from scipy import stats

from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation, rand_augment
from ba_dist.data.augment.operations import OPERATIONS, SIGNED
from ba_dist.rules.keys import augmentation_keys

from .photographs import INFOS, PICTURES, UNLIKELY, rendered
from .test_auto_augment import base_of, blend, done, turned

PHOTOGRAPHS = PICTURES["photographs"]
INFO = INFOS["photographs"]
NAMES = rand_augment.NAMES


def applied(image, magnitude, *operations):
    """The pixels after operations (name, sign), by way of a whole augmentation."""
    config = Augment(rand_augment=len(operations), rand_magnitude=magnitude)
    names, signs = zip(*operations, strict=True)
    parameters = {
        "rand_operations": np.array([[NAMES.index(name) for name in names]]),
        "rand_signs": np.array([signs]),
    }
    return rendered(Augmentation(config, INFO), [image], parameters)[0]


def drawn(config, count, info=INFO):
    keys = augmentation_keys(3, 1, np.arange(count), 2)
    return Augmentation(config, info).draw(keys, np.tile([40, 56], (count, 1)), 4)


# --- operations -----------------------------------------------------------------------------------


def test_there_are_the_papers_fourteen_and_all_are_autoaugments_but_for_identity():
    assert len(NAMES) == 14 and set(NAMES) == {"Identity", *OPERATIONS} - {"Invert"}
    assert set(NAMES) - SIGNED == {
        "Identity",
        *("AutoContrast", "Equalize", "Solarize", "Posterize"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_ten_is_the_strongest_of_autoaugment(name):
    for sign in (1, -1) if name in SIGNED else (0,):
        for image in PHOTOGRAPHS[::4]:
            expected = image if name == "Identity" else done(name, image, 9, sign)
            assert np.array_equal(applied(image, 10, (name, sign)), expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_magnitude_in_between(sign):
    """M = 9 is nine tenths of every strength."""
    for image in PHOTOGRAPHS[::3]:
        shift = int(150 / 331 * 56 * 0.9)
        padded = np.pad(image, ((0, 0), (shift, shift), (0, 0)))
        left = shift - sign * shift
        found = applied(image, 9, ("TranslateX", sign))
        assert np.array_equal(found, padded[:, left : left + 56])
        near = [turned(image, sign * 27 * (1 + bit)) for bit in (-1e-4, 1e-4)]
        found = applied(image, 9, ("Rotate", sign))
        equal = [np.all(found == expected, axis=2) for expected in near]
        assert np.mean(equal[0] | equal[1]) > 0.999
        for name in ("Brightness", "Contrast", "Color"):
            expected = blend(base_of(name, image), image, 1 + sign * 0.81)
            assert np.abs(applied(image, 9, (name, sign)) - expected).max() < 1.01
        solarized = np.where(image < 255 * 0.1, image, 255 - image)
        assert np.array_equal(applied(image, 9, ("Solarize", 0)), solarized)
        assert np.array_equal(applied(image, 9, ("Posterize", 0)), image // 16 * 16)


def test_beyond_ten_it_goes_on_to_an_end():
    image = PHOTOGRAPHS[2]
    assert np.array_equal(applied(image, 30, ("Posterize", 0)), image // 128 * 128)
    assert np.array_equal(applied(image, 30, ("Solarize", 0)), 255 - image)
    assert not applied(image, 30, ("Brightness", -1)).any()
    assert not applied(image, 30, ("TranslateY", 1)).any()
    brighter = np.minimum(image * 3.7, 255)
    assert np.abs(applied(image, 30, ("Brightness", 1)) - brighter).max() < 1.01


def test_operations_are_applied_one_after_the_other():
    image, chain = PHOTOGRAPHS[3], [("Color", -1), ("Identity", 0), ("Rotate", 1), ("Equalize", 0)]
    expected = image
    for name, sign in chain:
        expected = applied(expected, 7, (name, sign))
    assert np.array_equal(applied(image, 7, *chain), expected)
    assert not np.array_equal(applied(image, 7, *chain[::-1]), expected)


# --- draws ----------------------------------------------------------------------------------------


def test_operations_and_signs_are_even_and_independent():
    parameters = drawn(Augment(rand_augment=2, flip=True), 40_000)
    operations, signs = parameters["rand_operations"], parameters["rand_signs"]
    pairs = operations[:, 0] * 14 + operations[:, 1]
    assert stats.chisquare(np.bincount(pairs, minlength=14**2)).pvalue > UNLIKELY
    signed = np.isin(operations, [NAMES.index(name) for name in SIGNED])
    assert np.array_equal(signs != 0, signed)
    cells = operations[signed] * 2 + (signs[signed] > 0)
    counts = np.bincount(cells, minlength=28)
    assert stats.chisquare(counts[counts > 0]).pvalue > UNLIKELY and (counts > 0).sum() == 18
    flips = np.bincount(operations[:, 0] * 2 + parameters["flip"], minlength=28)
    assert stats.chisquare(flips).pvalue > UNLIKELY


def test_neither_other_augmentations_nor_n_move_the_draws():
    others = {"pad_crop": 4, "flip": True, "jitter": 0.4, "lighting": 0.1, "cutout": 5}
    two, three = (drawn(Augment(rand_augment=n, **others), 20) for n in (2, 3))
    alone, without = drawn(Augment(rand_augment=2), 20), drawn(Augment(**others), 20)
    assert set(alone) == {"rand_operations", "rand_signs"} == set(two) - set(without)
    for name, values in {**alone, **without}.items():
        assert np.array_equal(two[name], values)
        assert np.array_equal(three[name][:, :2] if name in alone else three[name], values)


def test_an_instance_depends_on_its_key_alone():
    config = Augment(rand_augment=2)
    augmentation, whole = Augmentation(config, INFO), drawn(config, 12)
    pixels = rendered(augmentation, PHOTOGRAPHS, whole)
    keys, rows = augmentation_keys(3, 1, np.arange(12), 2), [7, 3, 3]
    part = augmentation.draw(keys[rows], np.tile([40, 56], (3, 1)), 1)
    assert np.array_equal(rendered(augmentation, PHOTOGRAPHS[rows], part), pixels[rows])
    assert (pixels != PHOTOGRAPHS).any(axis=(1, 2, 3)).mean() > 0.8


def test_draws_are_these_for_ever():
    """A change makes old runs impossible to resume or to repeat."""
    parameters = drawn(Augment(rand_augment=2), 3)
    assert {name: values.tolist() for name, values in parameters.items()} == {
        "rand_operations": [[6, 1], [12, 7], [1, 13]],
        "rand_signs": [[0, 0], [-1, 1], [0, -1]],
    }
