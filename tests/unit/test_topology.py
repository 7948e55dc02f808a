"""The layout against rules written a second time, by brute force over small worlds."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ba_dist.errors import LayoutError
from ba_dist.rules.layout import Layout, batch_sizes_near, fits, group_sizes

SIZES = range(1, 17)


def divides(a: int, b: int) -> bool:
    return b in [a * n for n in range(b + 1)]


def batch_works(batch_size: int, groups: int, ghost: int) -> bool:
    """A group's part is whole, not empty, and made of whole ghost batches or smaller than one."""
    parts = [b for b in range(1, batch_size + 1) if b * groups == batch_size]
    return bool(parts) and (parts[0] <= ghost or divides(ghost, parts[0]))


def refusal(**arguments: int) -> str:
    with pytest.raises(LayoutError) as caught:
        Layout(**arguments)
    return str(caught.value)


def offered(message: str) -> list[int]:
    """The values that a message says would work."""
    values = [int(word) for word in re.split("values that work[^:]*: ", message)[1].split(",")]
    assert values
    return values


@pytest.mark.parametrize("world", SIZES)
def test_which_group_sizes_are_allowed(world, promise):
    for copies, size in product(SIZES, range(1, 18)):
        arguments = {"world_size": world, "multiplicity": copies, "group_size": size}
        if divides(size, world) and divides(size, copies):
            layout = Layout(batch_size=32 * world, **arguments)
            assert layout.groups * size == world
            assert layout.copies_per_rank * size == copies
            continue
        message = refusal(batch_size=32 * world, **arguments)
        assert {size, world, copies} <= set(map(int, re.findall(r"\d+", message)))
        allowed = [r for r in range(1, 17) if divides(r, world) and divides(r, copies)]
        assert offered(message) == group_sizes(world, copies) == allowed
        for value in allowed:
            Layout(batch_size=32 * world, **{**arguments, "group_size": value})
    text = "W, M, R in 1..16: taken at once, or refused with values that work"
    promise(6, text, 16 * 17, 16 * 17)


@pytest.mark.parametrize("world", SIZES)
def test_default_group_size_is_the_largest_allowed(world):
    for copies in SIZES:
        largest = max(r for r in range(1, 17) if divides(r, world) and divides(r, copies))
        assert Layout(world, copies, 32 * world).group_size == largest


def test_the_papers_layout():
    layout = Layout(world_size=8, multiplicity=4, batch_size=256)
    assert (layout.group_size, layout.groups, layout.copies_per_rank) == (4, 2, 1)
    assert (layout.group_batch, layout.instances_per_rank, layout.ghost_batch) == (128, 128, 32)
    assert [layout.group(r) for r in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [layout.lane(r) for r in range(8)] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [list(layout.copies(r)) for r in range(4)] == [[0], [1], [2], [3]]


@pytest.mark.parametrize("world", SIZES)
def test_every_instance_has_one_place(world):
    """Each (part of the batch, copy) exactly once over all ranks; the lanes of a group in order."""
    for copies in SIZES:
        for size in group_sizes(world, copies):
            layout = Layout(world, copies, 16 * (world // size), size)
            places = [(layout.group(r), m) for r in range(world) for m in layout.copies(r)]
            assert places == [(g, m) for g in range(world // size) for m in range(copies)]
            members = [
                [r for r in range(world) if layout.group(r) == g] for g in range(layout.groups)
            ]
            assert [r for group in members for r in group] == list(range(world))
            for group in members:
                assert [layout.lane(r) for r in group] == list(range(size))
            total = sum(layout.instances_per_rank for _ in range(world))
            assert total == layout.batch_size * copies


def test_which_batch_sizes_are_allowed():
    for groups, ghost, size in product(range(1, 9), (1, 2, 3, 8, 32), range(1, 100)):
        works = batch_works(size, groups, ghost)
        assert fits(size, groups, ghost) == works, (size, groups, ghost)
        arguments = {"world_size": groups, "multiplicity": 1, "ghost_batch_size": ghost}
        if works:
            layout = Layout(batch_size=size, **arguments)
            assert layout.group_batch * groups == size
            assert layout.ghost_batch == min(ghost, size // groups)
            assert layout.group_batch % layout.ghost_batch == 0
            assert (layout.notice() is None) == (size // groups >= ghost)
            continue
        message = refusal(batch_size=size, **arguments)
        numbers = set(map(int, re.findall(r"\d+", message.split("values that work")[0])))
        assert {size, groups} <= numbers
        assert size % groups or ghost in numbers
        for value in offered(message):
            Layout(batch_size=value, **arguments)


def test_offered_batch_sizes_are_the_nearest():
    for groups, ghost in product(range(1, 7), (1, 2, 5, 16)):
        valid = [b for b in range(1, 400) if batch_works(b, groups, ghost)]
        for size in set(range(1, 80)) - set(valid):
            expected = [b for b in valid if b < size][-3:] + [b for b in valid if b > size][:3]
            assert batch_sizes_near(size, groups, ghost) == expected


@given(st.integers(1, 2**40), st.integers(1, 2**12), st.integers(1, 2**40), st.integers(1, 2**12))
def test_any_size_is_answered_at_once(size, groups, ghost, copies):
    """However large the numbers, the check costs nothing and what it offers works."""
    arguments = {"world_size": groups, "multiplicity": copies, "ghost_batch_size": ghost}
    try:
        layout = Layout(batch_size=size, group_size=1, **arguments)
    except LayoutError as error:
        for value in offered(str(error)):
            Layout(batch_size=value, group_size=1, **arguments)
    else:
        assert layout.group_batch * groups == size


def test_which_microbatches_are_allowed():
    for copies, ghost, samples in product((1, 2, 3, 4), (2, 4, 32), (1, 2, 4, 8, 12)):
        arguments = {"multiplicity": copies, "batch_size": samples, "ghost_batch_size": ghost}
        if not batch_works(samples, 1, ghost):
            continue
        whole = samples * copies
        assert Layout(1, **arguments).microbatches == 1
        for size in range(1, whole + 2):
            ghost_batches = min(ghost, samples)
            if divides(size, whole) and divides(ghost_batches, size):
                layout = Layout(1, microbatch=size, **arguments)
                assert layout.microbatches * size == whole
                continue
            message = refusal(world_size=1, microbatch=size, **arguments)
            assert {size, whole} <= set(map(int, re.findall(r"\d+", message)))
            for value in offered(message):
                Layout(1, microbatch=value, **arguments)


def test_the_largest_microbatch_within_a_limit():
    for copies, ghost, samples, limit in product((1, 3, 4), (2, 32), (1, 4, 12, 64), range(1, 80)):
        if not batch_works(samples, 1, ghost):
            continue
        layout = Layout(1, copies, samples, ghost_batch_size=ghost)
        found = layout.microbatch_within(limit)
        arguments = {"multiplicity": copies, "batch_size": samples, "ghost_batch_size": ghost}
        assert Layout(1, microbatch=found, **arguments).microbatch == found
        valid = [
            size
            for size in range(1, samples * copies + 1)
            if divides(size, samples * copies) and divides(min(ghost, samples), size)
        ]
        assert found == max([size for size in valid if size <= limit] or [min(valid)])


@pytest.mark.parametrize("name", ["world_size", "multiplicity", "batch_size", "ghost_batch_size"])
def test_nothing_is_below_one(name):
    good = {"world_size": 2, "multiplicity": 2, "batch_size": 64, "ghost_batch_size": 32}
    for value in (0, -1):
        message = refusal(**{**good, name: value})
        shown = "number of ranks" if name == "world_size" else "--" + name.replace("_", "-")
        assert shown in message and str(value) in message and "at least 1" in message


@pytest.mark.parametrize("name", ["group_size", "microbatch"])
def test_negative_placement_is_refused(name):
    message = refusal(world_size=2, multiplicity=2, batch_size=64, **{name: -2})
    assert f"--{name.replace('_', '-')} -2" in message and offered(message)


def test_a_layout_does_not_depend_on_how_it_was_asked_for():
    """Defaults are filled in, so that a layout equals the same one spelled out."""
    assert Layout(4, 2, 64) == Layout(4, 2, 64, group_size=2, ghost_batch_size=32, microbatch=32)


@pytest.mark.parametrize("world", (1, 2, 3, 4, 6, 12))
def test_the_rows_of_all_ranks_are_all_instances_of_a_step(world):
    """Row m·B + p is copy m of the sample at position p, whoever holds it."""
    for copies, size in product((1, 2, 6, 12), group_sizes(world, 12)):
        if copies % size:
            continue
        layout = Layout(world, copies, 12 * (world // size), size)
        rows = [layout.rows(rank) for rank in range(world)]
        assert sorted(sum(rows, [])) == list(range(copies * layout.batch_size))
        for rank, mine in enumerate(rows):
            copies_of_rank, positions = zip(
                *(divmod(r, layout.batch_size) for r in mine), strict=True
            )
            # Copy by copy, each time the samples of the group in their order.
            assert list(dict.fromkeys(copies_of_rank)) == list(layout.copies(rank))
            part = [p // layout.group_batch for p in positions]
            assert set(part) == {layout.group(rank)} and positions[0] % layout.group_batch == 0
            assert len(set(positions)) == layout.group_batch
            assert list(mine) == sorted(mine)
