"""The audit reads a step at a time: what it still knows of an epoch, and what it costs."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ba_dist.analysis.trace import last_step, moments, traces
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import Permutation

from .test_audit import LAYOUT, SAMPLES, SEED, audit, entries_of, keys_fit, keys_of, problems, write


@pytest.fixture
def right():
    return entries_of(LAYOUT, SAMPLES, range(5))


# --- samples in the place of corrupt ones ---------------------------------------------------------


def take_the_place(trace, step, place, instead):
    """The group that holds this place of the epoch's order trains on another sample there."""
    order = Permutation(SAMPLES, SEED, step // 3)(np.arange(SAMPLES)).tolist()
    corrupt = order[step % 3 * 16 + place]
    for entries in trace.values():
        entry = entries[step]
        if corrupt in entry["sample_ids"]:
            ids = entry["sample_ids"]
            entry["sample_ids"] = [instead if i == corrupt else i for i in ids]
            keys_fit(entry)
            entry["replaced"] = {str(corrupt): instead}
    return corrupt


def at(step, place):
    return int(Permutation(SAMPLES, SEED, step // 3)([step % 3 * 16 + place])[0])


def test_the_same_place_of_the_next_step_may_take_it(tmp_path, right):
    take_the_place(right, 1, 9, at(2, 9))
    assert problems(tmp_path, right) == []


def test_after_the_last_step_of_an_epoch_comes_its_first(tmp_path, right):
    take_the_place(right, 0, 9, at(1, 9))
    # Step 0 is passed over: it was found corrupt there.
    take_the_place(right, 2, 9, at(1, 9))
    assert problems(tmp_path, right) == []


def test_a_sample_of_another_place_may_not_take_it(tmp_path, right):
    corrupt = take_the_place(right, 1, 9, at(2, 8))
    said = f"sample {at(2, 8)} may not take the place of sample {corrupt}"
    found = problems(tmp_path, right)
    assert {f"step 1, rank {rank}: {said}" for rank in (2, 3)} <= set(found)


def test_a_sample_that_was_passed_over_may_not_be_trained_on_later(tmp_path, right):
    take_the_place(right, 0, 9, at(2, 9))
    said = f"sample {at(1, 9)} was corrupt before in epoch 1"
    assert problems(tmp_path, right) == [f"step 1, rank {rank}: {said}" for rank in (2, 3)]


def test_a_sample_that_was_trained_on_may_not_be_passed_over(tmp_path, right):
    corrupt = take_the_place(right, 2, 9, at(1, 9))
    said = f"sample {at(0, 9)} was passed over for sample {corrupt}, but trained on before"
    # The first rank that says so is enough: from then on the sample counts as corrupt.
    assert problems(tmp_path, right) == [f"step 2, rank 2: {said}"]


# --- what it costs --------------------------------------------------------------------------------


def peak(folder, steps):
    """Bytes that an audit of so many steps needs at most."""
    layout = Layout(1, 2, 8, ghost_batch_size=4)
    folder.mkdir()
    write(folder, [(0, layout)], 8 * 10**6, entries_of_long(layout, steps))
    tracemalloc.start()
    assert audit(folder) == (steps, [])
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return size


def entries_of_long(layout, steps):
    order = Permutation(8 * 10**6, SEED, 0)
    trace = {0: {}}
    for step in range(steps):
        ids = order(np.arange(8 * step, 8 * step + 8)).tolist()
        pairs = [(i, m) for m in range(2) for i in ids]
        trace[0][step] = {
            **{"step": step, "epoch": 0, "group": 0, "lane": 0, "batch_sha256": "0"},
            "sample_ids": [i for i, _ in pairs],
            "copies": [m for _, m in pairs],
            "augment_keys": keys_of(SEED, 0, pairs),
            "instance_sha256": [f"{i:08x}{m:08x}" for i, m in pairs],
        }
    return trace


def test_a_long_run_needs_no_more_memory_than_a_short_one(tmp_path):
    short, long = peak(tmp_path / "short", 200), peak(tmp_path / "long", 1400)
    # Python keeps freed tuples for later, 2000 of each length, some 100 kB: a matter of when it
    # collects. To remember the ids of 1200 steps would cost 1 MB.
    assert long < short + 250_000


@pytest.mark.parametrize("length", [10, 2**16, 2**19])
def test_the_last_step_is_found_from_the_end_of_a_file(tmp_path, right, length):
    write(tmp_path, [(0, LAYOUT)], SAMPLES, right)
    path = traces(tmp_path, 4)[2]
    with path.open("a") as file:
        file.write(json.dumps({"weights_after": 5, "sha256": "0" * length}) + "\n")
    assert last_step(path) == 4
    path.write_text("")
    assert last_step(path) == -1


def test_files_are_not_kept_open(tmp_path):
    layout = Layout(64, 1, 128, 1, ghost_batch_size=2)
    write(tmp_path, [(0, layout)], 300, entries_of(layout, 300, range(4)))
    before = files_open()
    paths = traces(tmp_path, 64)
    steps = [(moment.step, files_open()) for moment in moments(paths, lambda step: 64)]
    assert steps == [(step, before) for step in range(5)]


def files_open():
    return len(list(Path("/proc/self/fd").iterdir()))
