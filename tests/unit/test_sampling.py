"""Orders are bijections and even; keys and draws depend on what they should and on nothing else.

All seeds are fixed, so a statistical test gives the same p-value in every run.
"""

import itertools
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from ba_dist.rules.keys import augmentation_keys, hash64, integers, uniforms
from ba_dist.rules.layout import Layout, steps_per_epoch
from ba_dist.rules.order import (
    MAX_SAMPLES,
    GroupSampler,
    Permutation,
    step_positions,
    subset_ids,
)

SEEDS = st.integers(0, 2**63 - 1)
EPOCHS = st.integers(0, 10_000)
UNLIKELY = 1e-4


def order(count: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return Permutation(count, seed, epoch)(np.arange(count))


# --- the order of an epoch ----------------------------------------------------------------------


@given(st.integers(1, 5000), SEEDS, EPOCHS)
@settings(max_examples=60)
@example(1, 0, 0)
@example(2, 0, 0)
@example(3, 0, 0)
def test_every_sample_once(count, seed, epoch):
    assert np.array_equal(np.sort(order(count, seed, epoch)), np.arange(count))


@pytest.mark.parametrize("power", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_every_sample_once_near_powers_and_squares(power, offset):
    for count in (2**power + offset, (power * 7) ** 2 + offset):
        assert np.array_equal(np.sort(order(count, 3, power)), np.arange(count))


@given(st.integers(5000, MAX_SAMPLES), SEEDS, EPOCHS, st.integers(0, 2**32))
@settings(max_examples=40)
@example(MAX_SAMPLES, 2**63 - 1, 0, 0)
@example(2**20 * (2**20 - 1) + 1, 0, 0, 0)
def test_large_orders_repeat_nothing_and_stay_inside(count, seed, epoch, draw):
    somewhere = np.random.default_rng(draw).integers(0, count, 2000)
    positions = np.unique(np.concatenate([somewhere, [0, 1, count - 2, count - 1]]))
    ids = Permutation(count, seed, epoch)(positions)
    assert len(np.unique(ids)) == len(positions)
    assert ids.min() >= 0 and ids.max() < count and ids.dtype == np.int64


@pytest.mark.parametrize(("count", "trials"), [(3, 600), (4, 1200), (5, 3600)])
def test_all_orders_are_equally_likely(count, trials):
    names = {name: i for i, name in enumerate(itertools.permutations(range(count)))}
    seen = [names[tuple(order(count, i // 50, i % 50))] for i in range(trials)]
    assert stats.chisquare(np.bincount(seen, minlength=len(names))).pvalue > UNLIKELY


def test_every_sample_is_equally_likely_at_every_place():
    count, trials = 50, 1500
    table = np.zeros((count, count))
    for epoch in range(trials):
        table[np.arange(count), order(count, 11, epoch)] += 1
    expected = trials / count
    # Rows and columns of a permutation both sum to 1, which leaves (N - 1)² degrees of freedom.
    statistic = ((table - expected) ** 2 / expected).sum() * (count - 1) / count
    p = stats.chi2.sf(statistic, (count - 1) ** 2)
    assert UNLIKELY < p < 1 - UNLIKELY


@pytest.mark.parametrize("count", [1000, 1024, 50_000])
def test_orders_of_other_epochs_and_seeds_are_unrelated(count):
    """Two random orders agree at Poisson(1) places and correlate by N(0, 1/N)."""
    pairs = [(order(count, 5, e), order(count, 5, e + 1)) for e in range(30)]
    pairs += [(order(count, s, 0), order(count, s + 1, 0)) for s in range(30)]
    pairs += [(order(count, 0, e + 1), order(count, e + 1, 0)) for e in range(30)]
    agreeing = sum(int((a == b).sum()) for a, b in pairs)
    assert abs(agreeing - len(pairs)) < 5 * len(pairs) ** 0.5
    correlations = np.array([np.corrcoef(a, b)[0, 1] for a, b in pairs]) * count**0.5
    assert stats.kstest(correlations, "norm").pvalue > UNLIKELY
    identity = [int((a == np.arange(count)).sum()) for a, _ in pairs]
    assert abs(sum(identity) - len(pairs)) < 5 * len(pairs) ** 0.5


@pytest.mark.parametrize("lag", [1, 2, 7, 224])
def test_neighbours_in_an_order_are_unrelated(lag):
    """No trace of the grid: the steps from a place to the next fall evenly on the circle."""
    ids = order(50_000, 1, 1)
    gaps = (np.roll(ids, lag) - ids) % len(ids)
    counts = np.bincount(gaps * 100 // len(ids), minlength=100)
    assert stats.chisquare(counts).pvalue > UNLIKELY


def test_orders_are_these_for_ever():
    """A change of the order makes old runs impossible to resume or to repeat."""
    assert order(10, 0, 0).tolist() == [9, 5, 3, 0, 4, 1, 6, 2, 7, 8]
    assert order(10, 0, 1).tolist() == [3, 2, 7, 0, 1, 9, 4, 6, 5, 8]
    assert order(10, 1, 0).tolist() == [0, 3, 2, 8, 1, 7, 9, 4, 6, 5]
    fashion = Permutation(60_000, 7, 3)([0, 1, 2, 59_999])
    assert fashion.tolist() == [36430, 15798, 34805, 30513]
    largest = Permutation(MAX_SAMPLES, 7, 3)([0, 1, MAX_SAMPLES - 1])
    assert largest.tolist() == [1026150721134, 614790434569, 401247519311]


@given(st.integers(1, 3000), SEEDS, st.data())
@settings(max_examples=30)
def test_any_part_in_any_shape_gives_the_same_ids(count, seed, data):
    whole = order(count, seed, 2)
    positions = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20)))
    permutation = Permutation(count, seed, 2)
    assert np.array_equal(permutation(positions), whole[positions])
    assert np.array_equal(permutation(positions[None, :, None]), whole[positions][None, :, None])
    assert permutation(int(positions[0])) == whole[positions[0]]
    assert permutation([]).shape == (0,)


def test_memory_does_not_grow_with_the_dataset():
    tracemalloc.start()
    Permutation(MAX_SAMPLES, 0, 0)(np.arange(1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


def test_what_is_outside_is_refused():
    for count in (0, -1, MAX_SAMPLES + 1):
        with pytest.raises(ValueError, match=f"{count}; it must be from 1 to 2"):
            Permutation(count, 0, 0)
    for position in (10, -1):
        with pytest.raises(ValueError, match=r"outside 0 … 9"):
            Permutation(10, 0, 0)([0, position])


@given(st.integers(1, 500), st.integers(1, 40), st.sampled_from([1, 2, 3, 5]))
def test_steps_and_groups_cut_an_epoch_into_disjoint_parts(count, group_batch, groups):
    batch_size = group_batch * groups
    steps = steps_per_epoch(count, batch_size)
    places = [
        place
        for step in range(steps)
        for group in range(groups)
        for place in step_positions(step, group, batch_size, group_batch)
    ]
    assert places == list(range(steps * batch_size))
    assert 0 <= count - len(places) < batch_size


# --- keys ---------------------------------------------------------------------------------------


def test_mix_is_splitmix64():
    """The first outputs of the published generator for the seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    states = [(1234567 + i * 0x9E3779B97F4A7C15) % 2**64 for i in range(4)]
    assert [int(x) for x in hash64(np.array(states, np.uint64))] == published


def test_keys_are_these_for_ever():
    assert [f"{k:x}" for k in augmentation_keys(0, 0, [0, 1], 0)] == [
        "67269e985d236b49",
        "d69741823648ff0d",
    ]
    assert f"{augmentation_keys(7, 3, 59_999, 39):x}" == "85bf0f4b0be0118f"


def test_no_two_instances_share_a_key():
    axes = [np.arange(12), np.arange(12), np.arange(40), np.arange(40)]
    grid = np.meshgrid(*axes, indexing="ij")
    keys = augmentation_keys(*grid)
    assert keys.dtype == np.uint64 and len(np.unique(keys)) == keys.size
    # Taken apart, (seed, epoch), (epoch, id) … are not interchangeable either.
    assert len({int(augmentation_keys(*p)) for p in itertools.permutations((1, 2, 3, 4))}) == 24


@given(st.tuples(SEEDS, EPOCHS, st.integers(0, 2**40), st.integers(0, 1000)), st.integers(0, 3))
def test_every_argument_changes_half_the_bits(arguments, which):
    other = list(arguments)
    other[which] ^= 1
    changed = augmentation_keys(*arguments) ^ augmentation_keys(*other)
    assert 8 <= bin(int(changed)).count("1") <= 56


def test_keys_broadcast_as_the_pipeline_asks():
    ids, copies = np.array([5, 9, 70]), np.array([2, 3])
    table = augmentation_keys(1, 2, ids[None, :], copies[:, None])
    one_by_one = [[int(augmentation_keys(1, 2, i, m)) for i in ids] for m in copies]
    assert table.tolist() == one_by_one


# --- draws --------------------------------------------------------------------------------------

KEYS = augmentation_keys(0, 0, np.arange(20_000), 0)


def test_uniforms_are_uniform_and_fine():
    drawn = uniforms(KEYS, 3)
    assert drawn.shape == (20_000, 3) and drawn.dtype == np.float64
    assert drawn.min() >= 0 and drawn.max() < 1
    assert np.array_equal(drawn * 2.0**53, np.floor(drawn * 2.0**53))
    for column in drawn.T:
        assert stats.kstest(column, "uniform").pvalue > UNLIKELY
        low_bits = (column * 2.0**53).astype(np.int64) % 16
        assert stats.chisquare(np.bincount(low_bits, minlength=16)).pvalue > UNLIKELY


def test_draws_are_these_for_ever():
    keys = augmentation_keys(0, 0, [0, 1], 0)
    assert uniforms(keys, 2, 5).tolist() == [
        [0.6368145935787298, 0.1627154419088599],
        [0.000667571241905085, 0.803194181293491],
    ]
    assert integers(keys, 0, 8, 1).tolist() == [7, 6]


def test_streams_numbers_and_instances_are_independent():
    columns = [
        *uniforms(KEYS, 2, 0).T,
        *uniforms(KEYS, 2, 1).T,
        *uniforms(augmentation_keys(0, 0, np.arange(20_000), 1), 1).T,
        *uniforms(augmentation_keys(0, 1, np.arange(20_000), 0), 1).T,
        *uniforms(augmentation_keys(1, 0, np.arange(20_000), 0), 1).T,
        np.roll(uniforms(KEYS, 1)[:, 0], 1),
    ]
    for a, b in itertools.combinations(columns, 2):
        cells = np.bincount((a * 8).astype(int) * 8 + (b * 8).astype(int), minlength=64)
        assert stats.chisquare(cells).pvalue > UNLIKELY


@given(st.lists(st.integers(0, 19_999), min_size=1, max_size=30), st.integers(1, 4))
def test_draws_depend_on_the_key_alone(rows, count):
    """However instances are spread over ranks and batches, each draws the same numbers."""
    assert np.array_equal(uniforms(KEYS[rows], count, 3), uniforms(KEYS, 4, 3)[rows, :count])
    assert np.array_equal(integers(KEYS[rows], -2, 5, 3), integers(KEYS, -2, 5, 3)[rows])


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 8), (-3, 3), (5, 5), (0, 223)])
def test_integers_are_even_with_both_ends(low, high):
    drawn = integers(KEYS, low, high, stream=2)
    assert drawn.dtype == np.int64 and (drawn.min(), drawn.max()) == (low, high)
    counts = np.bincount(drawn - low, minlength=high - low + 1)
    assert len(counts) == 1 or stats.chisquare(counts).pvalue > UNLIKELY


def test_integers_with_a_bound_for_each_key():
    high = np.arange(20_000) % 7
    drawn = integers(KEYS, 0, high, stream=4)
    assert (drawn >= 0).all() and (drawn <= high).all()
    for bound in range(7):
        mine = drawn[high == bound]
        assert np.array_equal(mine, integers(KEYS[high == bound], 0, bound, stream=4))
        assert set(mine.tolist()) == set(range(bound + 1))


# --- the sampler --------------------------------------------------------------------------------


def test_two_threads_ask_a_sampler_at_the_end_of_an_epoch():
    """One thread reads ahead into the next epoch while another replaces corrupt samples of this."""
    sampler = GroupSampler(96, 3, Layout(1, 1, 32), 0)
    expected = [Permutation(96, 3, epoch)(np.arange(96))[64:] for epoch in range(2)]
    begin = threading.Barrier(2)

    def ask(step):
        wrong = 0
        for _ in range(1500):
            begin.wait()
            epoch, ids = sampler(step)
            wrong += epoch != step // 3 or not np.array_equal(ids, expected[epoch])
        return wrong

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(ask, (2, 5))) == [0, 0]
    finally:
        sys.setswitchinterval(interval)


# --- an even share of the samples ---------------------------------------------------------------


@st.composite
def shares(draw, most=MAX_SAMPLES):
    """(n, N) with n up to N."""
    total = draw(st.integers(1, most))
    return draw(st.integers(1, total)), total


@given(shares(), st.data())
@example((MAX_SAMPLES, MAX_SAMPLES), None)
@example((MAX_SAMPLES - 1, MAX_SAMPLES), None)
def test_a_subset_takes_one_sample_of_each_equal_part(share, data):
    """Against Python's integers, which have any number of bits."""
    count, total = share
    inside = st.lists(st.integers(0, count - 1), max_size=20)
    positions = [0, count - 1, *(data.draw(inside) if data else ())]
    for i, sample_id in zip(positions, subset_ids(positions, count, total), strict=True):
        assert i * total // count <= sample_id < (i + 1) * total // count
        assert subset_ids(i, count, total) == sample_id, "alone as among others"


@given(st.integers(1, 3000))
def test_a_subset_of_all_is_all(total):
    assert subset_ids(np.arange(total), total, total).tolist() == list(range(total))


@given(st.lists(st.integers(0, 90), min_size=1, max_size=30).filter(any), st.data())
def test_sorted_classes_get_their_share_of_a_subset(sizes, data):
    """A class has less than one more or less at each end of it, and none more where parts fit."""
    total = sum(sizes)
    count = data.draw(st.integers(1, total))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    taken = np.bincount(labels[subset_ids(np.arange(count), count, total)], minlength=len(sizes))
    ends = np.cumsum([0, *sizes])
    for found, size, *borders in zip(taken, sizes, ends[:-1], ends[1:], strict=True):
        inside = [border * count % total for border in borders]
        assert abs(found - size * count / total) < sum(map(bool, inside)) or not any(inside)
        assert any(inside) or found * total == size * count
        assert found or size * count < 2 * total, "a class of two parts' length is always met"


def test_classes_that_alternate_with_the_length_of_a_part_are_no_trap():
    """Every tenth sample of ten classes that take turns would be of one class."""
    labels = subset_ids(np.arange(5000), 5000, 50_000) % 10
    assert stats.chisquare(np.bincount(labels, minlength=10)).pvalue > UNLIKELY
