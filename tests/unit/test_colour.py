"""Jitter and lighting against their formulas in float64, on real pictures."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation, colour
from ba_dist.data.augment.operations import Pixels
from ba_dist.rules.keys import augmentation_keys

from .photographs import INFOS, PICTURES, UNLIKELY, rendered, run

COUNT = 20_000
PHOTOGRAPHS, INFO = PICTURES["photographs"], INFOS["photographs"]


def drawn(config, count):
    keys = augmentation_keys(0, 0, np.arange(count), 0)
    return Augmentation(config, INFO).draw(keys, np.tile([40, 56], (count, 1)), 1)


# --- references -----------------------------------------------------------------------------------


def grey(image):
    """Luma of ITU-R 601, rounded."""
    return np.rint(image @ [0.299, 0.587, 0.114])[..., None]


def blend(base, image, factor):
    """base + factor · (image - base), within 0 … 255, rounded down as pixels are."""
    return np.floor(np.clip(base + factor * (image - base) + 1e-4, 0, 255))


def brightness(image, factor):
    return blend(0.0, image, factor)


def contrast(image, factor):
    return blend(np.floor(grey(image).mean() + 0.5), image, factor)


def saturation(image, factor):
    return blend(grey(image), image, factor)


def jittered(image, order, factors):
    pixels, out = Pixels(image), np.full_like(image, 77)
    colour.jitter(pixels, order, factors)
    pixels.write(out)
    return out


KINDS = (brightness, contrast, saturation)


# --- jitter ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.37, 2.0])
def test_one_kind(kind, factor):
    factors = np.ones(3)
    factors[kind] = factor
    for image in PHOTOGRAPHS:
        expected = KINDS[kind](image.astype(float), factor)
        for order in range(6):  # the others change nothing
            found = jittered(image, order, factors)
            assert np.abs(found - expected).max() <= 1 and np.mean(found != expected) < 0.03


def test_the_order_counts():
    """Each is what its formula says, and all six are different (where something is clipped)."""
    factors = np.array([1.8, 0.4, 1.9])
    results = []
    for order, kinds in enumerate(colour.ORDERS):
        found = [jittered(p, order, factors) for p in PHOTOGRAPHS]
        for image, pixels in zip(PHOTOGRAPHS, found, strict=True):
            expected = image.astype(float)
            for kind in kinds:
                expected = KINDS[kind](expected, factors[kind])
            assert np.abs(pixels - expected).max() <= 3
            assert np.abs(pixels - expected).mean() < 0.3
        results.append(np.stack(found).astype(int))
    for a, b in itertools.combinations(results, 2):
        assert np.abs(a - b).max() > 10


def test_jitter_of_the_chain():
    augmentation = Augmentation(Augment(jitter=0.4), INFO)
    parameters = drawn(Augment(jitter=0.4), 12)
    found = rendered(augmentation, PHOTOGRAPHS, parameters)
    for i, image in enumerate(PHOTOGRAPHS):
        expected = image.astype(float)
        for kind in colour.ORDERS[parameters["jitter_order"][i]]:
            expected = KINDS[kind](expected, parameters["jitter_factors"][i, kind])
        assert np.abs(found[i] - expected).max() <= 3


@pytest.mark.parametrize("strength", [0.1, 0.4, 1.0])
def test_jitter_is_spread_evenly(strength):
    parameters = drawn(Augment(jitter=strength), COUNT)
    orders, factors = parameters["jitter_order"], parameters["jitter_factors"]
    assert stats.chisquare(np.bincount(orders, minlength=6)).pvalue > UNLIKELY
    for column in factors.T:
        scaled = (column - (1 - strength)) / (2 * strength)
        assert stats.kstest(scaled, "uniform").pvalue > UNLIKELY


# --- lighting -------------------------------------------------------------------------------------


def test_lighting_has_the_colours_of_imagenet():
    """Its covariance is V · diag(0.1 · value)² · V', for the published values and vectors."""
    values = np.diag([0.2175, 0.0188, 0.0045]) * 0.1
    vectors = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    offsets = drawn(Augment(lighting=0.1), COUNT)["lighting"] / 255.0
    expected = vectors @ values**2 @ vectors.T
    assert np.abs(np.cov(offsets.T) - expected).max() < 0.04 * np.abs(expected).max()
    assert np.abs(offsets.mean(axis=0)).max() < 5 * 0.013 / np.sqrt(COUNT)
    for alpha in (offsets @ np.linalg.inv(vectors).T / np.diag(values)).T:
        assert stats.kstest(alpha, "norm").pvalue > UNLIKELY


def test_lighting_is_finite_at_both_ends():
    ends = np.array([[0.0] * 3, [1 - 2.0**-53] * 3])
    assert np.isfinite(colour.lighting_offsets(ends, 1.0)).all()


@pytest.mark.parametrize("how", ["eager", "tf.data"])
def test_lighting_is_added_before_normalising_and_not_clipped(how):
    augmentation = Augmentation(Augment(lighting=3.0), INFO)
    parameters = drawn(Augment(lighting=3.0), 12)
    found = run(how, augmentation.finish, PHOTOGRAPHS, parameters)
    offsets = parameters["lighting"][:, None, None, :] / 255.0
    expected = (PHOTOGRAPHS / 255.0 + offsets - INFO.mean) / INFO.std
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
    unclipped = PHOTOGRAPHS / 255.0 + offsets
    assert unclipped.min() < -0.1 and unclipped.max() > 1.1
