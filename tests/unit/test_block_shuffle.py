"""The order of `--shuffle block`, and what takes the place of a corrupt sample."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ba_dist.errors import CorruptRecord
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import BlockShuffle, GroupSampler, Permutation, shuffle

sizes = {"count": st.integers(1, 3000), "block": st.integers(1, 50), "window": st.integers(1, 9)}
seeds = {"seed": st.integers(0, 2**63 - 1), "epoch": st.integers(0, 1000)}


@given(**sizes, **seeds)
def test_every_sample_once(count, block, window, seed, epoch):
    order = BlockShuffle(count, seed, epoch, block, window)
    assert sorted(order(np.arange(count))) == list(range(count))


@given(**sizes, **seeds, data=st.data())
def test_any_part_in_any_shape_gives_the_same_ids(count, block, window, seed, epoch, data):
    order = BlockShuffle(count, seed, epoch, block, window)
    positions = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=8))
    whole = order(np.arange(count))
    assert order(np.reshape(positions, (1, -1))).tolist() == [whole[positions].tolist()]


@given(**sizes, **seeds)
def test_a_window_touches_few_blocks(count, block, window, seed, epoch):
    """A window's samples are so many runs of consecutive records and no more."""
    ids = BlockShuffle(count, seed, epoch, block, window)(np.arange(count))
    windows = max(1, count // block // window)
    for number in range(windows):
        last = count if number == windows - 1 else (number + 1) * block * window
        part = np.sort(ids[number * block * window : last])
        jumps = int((np.diff(part) > 1).sum())
        whole_blocks = len(part) // block
        # A run for each block, one for the rest, one where the end of the data is passed.
        assert jumps <= whole_blocks + 1


def test_windows_are_mixed_and_blocks_permuted():
    order = BlockShuffle(100_000, 3, 0, 100, 10)
    ids = order(np.arange(1000))
    assert len(np.unique(ids // 100)) in range(10, 22)
    assert np.abs(np.corrcoef(np.arange(1000), ids)[0, 1]) < 0.2
    firsts = [BlockShuffle(100_000, 3, epoch, 100, 10)(np.arange(1000)) for epoch in range(20)]
    assert len({int(ids[0]) for ids in firsts}) == 20
    assert not np.array_equal(ids, BlockShuffle(100_000, 4, 0, 100, 10)(np.arange(1000)))


def test_what_is_left_over_is_another_part_in_every_epoch():
    """The end of the order is dropped when it fills no batch: it must not always be the same."""
    last = [int(BlockShuffle(1001, 0, epoch, 100, 2)([1000])[0]) for epoch in range(200)]
    assert len(set(last)) > 100 and min(last) < 200 and max(last) > 800


def test_memory_does_not_grow_with_the_dataset():
    tracemalloc.start()
    order = BlockShuffle(10**10, 1, 0, 128, 32)
    order(np.arange(10**10 - 64, 10**10))
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_orders_are_these_for_ever():
    found = BlockShuffle(20, seed=1, epoch=2, block=3, window=2)(np.arange(20)).tolist()
    assert found == [12, 11, 6, 10, 4, 5, 14, 7, 15, 9, 8, 13, 1, 2, 3, 16, 18, 19, 17, 0]


def test_what_is_outside_is_refused():
    with pytest.raises(ValueError, match=r"position 5 is outside 0 … 4"):
        BlockShuffle(5, 0, 0, 2, 2)([5])


# --- in the place of corrupt samples --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "block"])
def test_later_samples_are_those_of_the_same_place_in_any_layout(kind):
    order = shuffle(kind, 4, 2)
    whole = [GroupSampler(100, 7, Layout(1, 1, 12, ghost_batch_size=4), 0, order=order)]
    parts = [
        GroupSampler(100, 7, Layout(3, 1, 12, ghost_batch_size=4), g, order=order) for g in range(3)
    ]
    for step, later in ((0, 1), (7, 1), (6, 3), (11, 5)):
        joined = np.concatenate([part.later(step, later) for part in parts])
        assert joined.tolist() == whole[0].later(step, later).tolist()
        epoch, at = divmod(step, 8)
        expected = whole[0](8 * epoch + (at + later) % 8)[1]
        assert joined.tolist() == expected.tolist()
        assert not set(joined) & set(whole[0](step)[1].tolist())


def test_an_epoch_of_one_step_has_nothing_to_put_there():
    sampler = GroupSampler(10, 0, Layout(1, 1, 8, ghost_batch_size=8), 0)
    with pytest.raises(CorruptRecord, match="an epoch has only 1 steps"):
        sampler.later(0, 1)


def test_full_is_the_permutation():
    positions = np.arange(50)
    assert (
        shuffle("full", 1, 1)(50, 3, 4)(positions).tolist()
        == Permutation(50, 3, 4)(positions).tolist()
    )
