"""What is compared: random pairs of samples, copies of a sample, the correlation of two vectors."""

import numpy as np
import pytest

from ba_dist.analysis.correlation import Instances, augmentations, left_out
from ba_dist.config import Augment, Config, override
from ba_dist.data.sources import ImageInfo
from ba_dist.errors import ConfigError
from ba_dist.rules.correlation import pearson, spread
from ba_dist.rules.pairs import choose_pairs

LABELS = np.random.default_rng(0).integers(0, 10, 2000)


def drawn(count=100, seed=0, labels=LABELS):
    return choose_pairs(lambda i: int(labels[i]), len(labels), count, seed)


def test_pairs_have_the_classes_that_they_should():
    found = drawn()
    x, y, z, w = (LABELS[ids] for ids in (found.x, found.y, found.z, found.w))
    assert (x == y).all() and (z != w).all() and len(x) == len(w) == 100
    assert len({*found.x, *found.y}) == len({*found.z, *found.w}) == 200


def test_they_follow_from_the_seed_alone():
    first, again, other = drawn(), drawn(), drawn(seed=1)
    for name in "xyzw":
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert (getattr(first, name) != getattr(other, name)).any()


def test_more_pairs_do_not_prefer_a_class():
    """All of x, y, z and w have each class about as often as the samples have it."""
    expected = np.bincount(LABELS, minlength=10) / len(LABELS)
    found = [drawn(300, seed) for seed in range(10)]
    for name in "xyzw":
        labels = LABELS[np.concatenate([getattr(pairs, name) for pairs in found])]
        shares = np.bincount(labels, minlength=10) / len(labels)
        np.testing.assert_allclose(shares, expected, atol=0.025)


def test_few_labels_are_looked_at():
    asked = []
    choose_pairs(lambda i: asked.append(i) or i % 10, 10**9, 20, 0)
    assert len(asked) < 500


@pytest.mark.parametrize(
    "labels", [np.zeros(50, int), np.arange(50), np.array([0, 0, 0, 1]), np.zeros(1, int)]
)
def test_too_few_pairs_are_refused(labels):
    with pytest.raises(ConfigError, match="--pairs 30: .* training samples hold only [0-9]+ pairs"):
        drawn(30, labels=labels)


def test_the_largest_number_of_pairs_that_is_told_works():
    labels = np.arange(40) % 4
    with pytest.raises(ConfigError, match="use fewer pairs"):
        drawn(21, labels=labels)
    found = drawn(10, labels=labels)
    assert (labels[found.x] == labels[found.y]).all()


# --- copies ---------------------------------------------------------------------------------------


def test_augmentations_are_named_alone_and_added_up():
    found = augmentations(Augment(pad_crop=4, flip=True, cutout=16))
    alone = [("pad-crop",), ("flip",), ("cutout",)]
    assert found == [*alone, ("pad-crop", "flip"), ("pad-crop", "flip", "cutout")]
    assert augmentations(Augment()) == []
    assert augmentations(Augment(jitter=0.4, mixup=0.2)) == [("jitter",)]
    large = Augment(crop="random-resized", auto_augment="imagenet", lighting=0.1)
    assert augmentations(large)[:3] == [("crop",), ("auto-augment",), ("lighting",)]


def test_what_mixes_two_samples_is_left_out():
    config = override(Config("x"), {"mixup": 0.2, "cutmix": 1.0})
    assert left_out(config) == ("mixup", "cutmix")
    assert left_out(override(Config("x"), {"manifold_mixup": 1.0})) == ("manifold mixup",)
    assert left_out(Config("x")) == ()


def test_every_copy_differs_from_its_sample_by_what_it_is_named_after():
    info = ImageInfo("some", (0, 0, 3), 5, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    changes = {"crop": "random-resized", "flip": True, "jitter": 0.3, "cutout": 4, "mixup": 0.4}
    config = override(Config("x"), {**changes, "image_size": 16, "resize": 20})
    made = Instances(config, info, 0)
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    plain = made.plain(image, 1)["images"].numpy()
    assert plain.shape == (1, 16, 16, 3)
    for sample in range(8):
        for view in augmentations(config.augment):
            copy = made.copy(image, 1, sample, view)["images"].numpy()
            assert copy.shape == plain.shape and (copy != plain).any(), view
        mirrored = made.copy(image, 1, sample, ("flip",))["images"].numpy()
        np.testing.assert_array_equal(mirrored, plain[:, :, ::-1])
        hole = made.copy(image, 1, sample, ("cutout",))["images"].numpy()
        assert ((hole == plain) | (hole == 0)).all()


def test_a_copy_that_can_only_be_the_sample_itself_is_taken():
    info = ImageInfo("some", (8, 8, 1), 5, (0.5,), (0.2,))
    made = Instances(override(Config("x"), {"flip": True}), info, 0)
    blank = np.zeros((8, 8, 1), np.uint8)
    copy = made.copy(blank, 1, 0, ("flip",))["images"]
    np.testing.assert_array_equal(copy, made.plain(blank, 1)["images"])


# --- correlation ----------------------------------------------------------------------------------


def test_pearson_is_that_of_numpy():
    numbers = np.random.default_rng(0)
    for scale in (1e-12, 1.0, 1e12):
        a = (scale * numbers.normal(3, 1, 5000)).astype(np.float32)
        b = (0.3 * a + scale * numbers.normal(0, 1, 5000)).astype(np.float32)
        expected = np.corrcoef(a.astype(np.float64), b.astype(np.float64))[0, 1]
        assert pearson(a, b) == pytest.approx(expected, rel=1e-12)
    assert pearson(a, a) == pearson(a, 2 * a + 3) == pytest.approx(1, abs=1e-12)
    assert pearson(a, -a) == pytest.approx(-1, abs=1e-12)


def test_it_is_float64_where_float32_would_lose_it():
    a = np.float32(1e4) + np.arange(1000, dtype=np.float32) / 1000
    b = np.float32(1e4) - np.arange(1000, dtype=np.float32) / 1000
    assert pearson(a, b) == pytest.approx(-1, abs=1e-3)


def test_a_constant_gradient_has_no_correlation():
    assert np.isnan(pearson(np.zeros(5), np.arange(5.0)))
    found = spread(np.array([0.5, np.nan, 0.7, 0.6]))
    assert (found.median, found.undefined) == (0.6, 1)
    assert found.deviation == pytest.approx(np.std([0.5, 0.7, 0.6], ddof=1))
    assert np.isnan(spread(np.array([np.nan])).median)
