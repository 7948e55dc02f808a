"""Mixup and CutMix against loops, and that the layout of the ranks does not matter to them."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation, mixing
from ba_dist.errors import ConfigError
from ba_dist.rules.keys import augmentation_keys
from ba_dist.rules.order import Permutation
from ba_dist.tasks.classification import Classification

from .photographs import INFOS, PICTURES, UNLIKELY, rendered, run

COUNT = 20_000
INFO = INFOS["photographs"]
CONFIGS = {
    "mixup": Augment(mixup=0.4),
    "cutmix": Augment(cutmix=1.0),
    "both": Augment(mixup=0.4, cutmix=1.0),
}
GHOSTS = st.integers(2, 40)
SEEDS = st.integers(0, 2**32)


@pytest.fixture(params=CONFIGS)
def kind(request):
    return request.param


@pytest.fixture(params=["eager", "tf.data"])
def how(request):
    return request.param


def drawn(config, count, ghost_batch, seed=0):
    keys = augmentation_keys(seed, 0, np.arange(count), 0)
    augmentation = Augmentation(config, INFO)
    return augmentation, augmentation.draw(keys, np.tile([40, 56], (count, 1)), ghost_batch)


# --- partners -------------------------------------------------------------------------------------


@given(ghost_batch=GHOSTS, batches=st.integers(1, 4), seed=SEEDS)
def test_a_partner_is_another_of_the_ghost_batch(ghost_batch, batches, seed):
    numbers = np.random.default_rng(seed).random(ghost_batch * batches)
    numbers[:2] = 0, np.nextafter(1, 0)
    for i, step in enumerate(mixing.partners(numbers, ghost_batch)):
        place = (i + 1 + int(numbers[i] * (ghost_batch - 1))) % ghost_batch
        assert i + step == i // ghost_batch * ghost_batch + place != i


def test_every_partner_is_as_likely():
    ghost_batch = 8
    _, parameters = drawn(CONFIGS["mixup"], COUNT, ghost_batch)
    rows = np.arange(COUNT)
    places, partners = rows % ghost_batch, (rows + parameters["mix_partner"]) % ghost_batch
    counts = np.zeros((8, 8), int)
    np.add.at(counts, (places, partners), 1)
    assert not counts.diagonal().any()
    for place in range(8):
        assert stats.chisquare(np.delete(counts[place], place)).pvalue > UNLIKELY


def test_a_ghost_batch_of_one_cannot_be_mixed(kind):
    with pytest.raises(ConfigError, match="--manifold-mixup mix .* holds 1 here"):
        drawn(CONFIGS[kind], 4, 1)
    drawn(Augment(flip=True), 4, 1)


def test_ghost_batches_are_whole():
    with pytest.raises(ValueError, match="10 instances are not whole ghost batches of 4"):
        drawn(CONFIGS["mixup"], 10, 4)


# --- draws ----------------------------------------------------------------------------------------


def test_shares_follow_the_beta_distribution():
    for alpha in (0.2, 0.4, 1.0, 3.0):
        _, parameters = drawn(Augment(mixup=alpha), COUNT, 32)
        share = parameters["mix_label"]
        assert share.dtype == np.float32 and np.array_equal(share, parameters["mix_pixels"])
        assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > UNLIKELY


def test_boxes_have_the_share_of_the_beta_distribution():
    """Before clipping; the box of half the height is 2·⌊height/4⌋, as published."""
    weight = stats.beta(1, 1).ppf(np.linspace(0, 1, 200))
    generator = np.random.default_rng(0)
    centres = generator.random((200, 2))
    for found, share, (y, x) in zip(
        mixing.boxes(weight, centres, 40, 56), weight, centres, strict=True
    ):
        cut = np.sqrt(1 - share)
        high, wide, cy, cx = int(40 * cut), int(56 * cut), int(40 * y), int(56 * x)
        assert found.tolist() == [
            max(cy - high // 2, 0),
            max(cx - wide // 2, 0),
            min(cy + high // 2, 40),
            min(cx + wide // 2, 56),
        ]


@given(height=st.integers(1, 300), width=st.integers(1, 300), share=st.floats(0, 1), seed=SEEDS)
def test_boxes_are_in_the_image(height, width, share, seed):
    centres = np.random.default_rng(seed).random((20, 2))
    centres[0], centres[1] = 0, np.nextafter(1, 0)
    top, left, bottom, right = mixing.boxes(np.full(20, share), centres, height, width).T
    assert ((top >= 0) & (top <= bottom) & (bottom <= height)).all()
    assert ((left >= 0) & (left <= right) & (right <= width)).all()
    assert ((bottom - top) * (right - left) <= (1 - share) * height * width + 1e-6).all()


def test_the_label_has_the_share_of_the_pixels_that_are_left():
    _, parameters = drawn(CONFIGS["cutmix"], 200, 4)
    for label, (top, left, bottom, right) in zip(
        parameters["mix_label"], parameters["mix_box"], strict=True
    ):
        own = np.ones((40, 56))
        own[top:bottom, left:right] = 0
        assert label == np.float32(own.mean())
    assert (parameters["mix_pixels"] == 1).all()
    assert len(np.unique(parameters["mix_box"], axis=0)) > 190


def test_where_both_are_wanted_each_takes_one():
    _, parameters = drawn(CONFIGS["both"], COUNT, 4)
    cut = parameters["mix_pixels"] == 1
    assert stats.binomtest(int(cut.sum()), COUNT, 0.5).pvalue > UNLIKELY
    assert not parameters["mix_box"][~cut].any()
    assert np.array_equal(parameters["mix_label"][~cut], parameters["mix_pixels"][~cut])
    assert stats.kstest(parameters["mix_label"][~cut], stats.beta(0.4, 0.4).cdf).pvalue > UNLIKELY
    # Neighbours in a ghost batch choose apart from each other.
    pairs = np.bincount(2 * cut[::2] + cut[1::2], minlength=4)
    assert stats.chisquare(pairs).pvalue > UNLIKELY


# --- pixels and labels ----------------------------------------------------------------------------


def test_mixed_pixels(how, kind):
    augmentation, parameters = drawn(CONFIGS[kind], 12, 4)
    images = np.random.default_rng(0).normal(size=(12, 40, 56, 3)).astype(np.float32)
    found = run(how, mixing.mix, images, augmentation.finish_parameters(parameters))
    for i, image in enumerate(images.astype(float)):
        share = np.full((40, 56, 1), float(parameters["mix_pixels"][i]))
        if "mix_box" in parameters:
            top, left, bottom, right = parameters["mix_box"][i]
            share[top:bottom, left:right] = 0
        expected = share * image + (1 - share) * images[i + parameters["mix_partner"][i]]
        np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-6)
        whole = (share == 0) | (share == 1)  # CutMix moves pixels and changes none
        assert np.array_equal(found[i][whole[..., 0]], expected[whole[..., 0]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_targets(how, kind, smoothing):
    augmentation, parameters = drawn(CONFIGS[kind], 12, 4)
    labels = np.arange(12) % 10
    found = run(
        how,
        lambda a, p: Classification(augmentation, smoothing).targets(a, p),
        labels,
        augmentation.finish_parameters(parameters),
    )
    expected = np.full((12, 10), smoothing / 10)
    for i, label in enumerate(labels):
        share = float(parameters["mix_label"][i])
        expected[i, label] += (1 - smoothing) * share
        expected[i, labels[i + parameters["mix_partner"][i]]] += (1 - smoothing) * (1 - share)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_targets_without_mixing():
    augmentation, parameters = drawn(Augment(cutout=3), 4, 1)
    labels = tf.constant([3, 0, 9, 9], tf.int64)
    finishing = augmentation.finish_parameters(parameters)
    for given_parameters in (finishing, {}):
        assert Classification(augmentation).targets(labels, given_parameters) is labels
        smoothed = Classification(augmentation, 0.1).targets(labels, given_parameters).numpy()
        expected = 0.9 * np.eye(10)[[3, 0, 9, 9]] + 0.01
        np.testing.assert_allclose(smoothed, expected, atol=1e-7)


# --- layouts --------------------------------------------------------------------------------------


def trained(config, ghost_batch, groups, lanes, copies=4, batch=16, step=3):
    """(sample, copy) → (pixels, target) of one step, computed rank by rank.

    A group holds consecutive places of the epoch's order, a lane of it consecutive copies.
    """
    augmentation = Augmentation(config, INFO)
    order = Permutation(64, seed=1, epoch=0)
    per_group, per_rank = batch // groups, copies // lanes
    instances = {}
    for group in range(groups):
        first = step * batch % 64 + group * per_group
        ids = order(np.arange(first, first + per_group))
        for lane in range(lanes):
            mine = np.arange(lane * per_rank, (lane + 1) * per_rank)
            pairs = [(sample, copy) for copy in mine for sample in ids]
            keys = augmentation_keys(1, 0, *np.array(pairs).T)
            images = [PICTURES["photographs"][sample % 12] for sample, _ in pairs]
            parameters = augmentation.draw(keys, np.tile([40, 56], (len(pairs), 1)), ghost_batch)
            finishing = augmentation.finish_parameters(parameters)
            pixels = augmentation.finish(rendered(augmentation, images, parameters), finishing)
            labels = np.array([sample % 10 for sample, _ in pairs])
            targets = Classification(augmentation, 0.1).targets(labels, finishing)
            instances.update(
                zip(pairs, zip(pixels.numpy(), targets.numpy(), strict=True), strict=True)
            )
    return instances


@pytest.mark.parametrize(("groups", "lanes"), [(1, 2), (1, 4), (2, 1), (4, 1), (2, 2)])
def test_every_layout_mixes_the_same(groups, lanes):
    config = Augment(pad_crop=4, flip=True, cutout=5, mixup=0.4, cutmix=1.0)
    alone, shared = trained(config, 4, 1, 1), trained(config, 4, groups, lanes)
    assert len(alone) == 64 and alone.keys() == shared.keys()
    for pair, (pixels, target) in alone.items():
        assert np.array_equal(pixels, shared[pair][0]) and np.array_equal(target, shared[pair][1])
