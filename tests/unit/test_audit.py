"""The audit passes traces that are right and names step and rank of every way to be wrong."""

import hashlib
import json
import re
from dataclasses import asdict, replace
from math import gcd

import numpy as np
import pytest

from ba_dist import tasks
from ba_dist.analysis import audit as module
from ba_dist.config import Config, override, to_dict
from ba_dist.data.sources import ImageInfo
from ba_dist.errors import UserError
from ba_dist.rules.keys import augmentation_keys
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import Permutation

SEED = 5
INFO = ImageInfo("none", (8, 8, 1), 10, (0.5,), (0.5,))


def audit(folder):
    """These traces are made by hand and have no pixels; test_audit_pixels.py has some."""
    return module.audit(folder, render=0)


def entries_of(layout, samples, steps):
    """What each rank should write, made instance by instance: {rank: {step: entry}}."""
    world, copies, size = layout.world_size, layout.multiplicity, layout.group_size
    per_step, per_group = layout.batch_size, layout.batch_size * size // world
    trace = {rank: {} for rank in range(world)}
    for step in steps:
        epoch = step // (samples // per_step)
        order = Permutation(samples, SEED, epoch)(np.arange(samples)).tolist()
        begin = step % (samples // per_step) * per_step
        for rank in range(world):
            group, lane = rank // size, rank % size
            ids = order[begin + group * per_group : begin + (group + 1) * per_group]
            mine = range(lane * copies // size, (lane + 1) * copies // size)
            pairs = [(i, m) for m in mine for i in ids]
            trace[rank][step] = {
                "step": step,
                "epoch": epoch,
                "group": group,
                "lane": lane,
                "sample_ids": [i for i, _ in pairs],
                "copies": [m for _, m in pairs],
                "augment_keys": keys_of(SEED, epoch, pairs),
                "batch_sha256": hashlib.sha256(repr(ids).encode()).hexdigest(),
                "instance_sha256": [f"{i:08x}{m:08x}" for i, m in pairs],
            }
    return trace


def keys_of(seed, epoch, pairs):
    """As they are written down: 16 hexadecimal digits."""
    ids, copies = np.array(pairs).T
    return [format(key, "016x") for key in augmentation_keys(seed, epoch, ids, copies).tolist()]


def write(folder, jobs, samples, trace, summary=None):
    """A run directory: `jobs` are (first step, layout)."""
    last = jobs[-1][1]
    facts = {
        "config": to_dict(override(Config("test"), {"seed": SEED})),
        "data": {"info": asdict(INFO)},
        "layout": asdict(last),
        "samples": samples,
        "steps_per_epoch": samples // last.batch_size,
    }
    if len(jobs) > 1:
        facts["layouts"] = [[first, asdict(layout)] for first, layout in jobs]
    (folder / "config.json").write_text(json.dumps(facts))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps({"steps": summary}))
    (folder / "trace").mkdir(exist_ok=True)
    steps = max((step + 1 for entries in trace.values() for step in entries), default=0)
    for rank, entries in trace.items():
        lines = lines_of(rank, entries, jobs, samples, steps)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "trace" / f"rank-{rank:05d}.jsonl").write_text(text)


def lines_of(rank, entries, jobs, samples, steps):
    """The entries of a rank, and digests of weights at each epoch's and each job's two ends."""
    begins = {first for first, _ in jobs}
    for step in range(steps):
        layout = [layout for first, layout in jobs if first <= step][-1]
        there = rank < layout.world_size
        if there and (step in begins or step % (samples // layout.batch_size) == 0):
            yield {"weights_after": step, "sha256": f"{step:064x}"}
        if step in entries:
            yield entries[step]
        if there and step + 1 in begins:
            yield {"weights_after": step + 1, "sha256": f"{step + 1:064x}"}


def all_layouts():
    for world in range(1, 7):
        for copies in range(1, 7):
            for size in range(1, 7):
                if gcd(world, copies) % size == 0:
                    yield Layout(world, copies, 4 * world // size, size, ghost_batch_size=2)


@pytest.mark.parametrize(
    "layout", list(all_layouts()), ids=lambda a: f"W{a.world_size}M{a.multiplicity}R{a.group_size}"
)
def test_right_traces_are_clean(tmp_path, layout):
    samples = 2 * layout.batch_size + 1  # one is dropped from each epoch
    write(tmp_path, [(0, layout)], samples, entries_of(layout, samples, range(5)), summary=5)
    assert audit(tmp_path) == (5, [])


# --- every way to be wrong ----------------------------------------------------------------------

LAYOUT = Layout(
    4, 4, 16, 2, ghost_batch_size=4
)  # two groups of two ranks, two copies a rank, b = 8
SAMPLES = 50


@pytest.fixture
def right():
    return entries_of(LAYOUT, SAMPLES, range(5))


def problems(folder, trace, **more):
    write(folder, [(0, LAYOUT)], SAMPLES, trace, **more)
    return audit(folder)[1]


def swap(values, a, b):
    values[a], values[b] = values[b], values[a]


def keys_fit(entry):
    """Makes an entry's keys those of its pairs, so that only the other fault is left."""
    pairs = list(zip(entry["sample_ids"], entry["copies"], strict=True))
    entry["augment_keys"] = keys_of(SEED, entry["epoch"], pairs)


def swap_ids(e):
    swap(e["sample_ids"], 0, 1)


def swap_instances(e):
    for name in ("sample_ids", "copies", "augment_keys"):
        swap(e[name], 2, 3)


def wrong_copy(e):
    e["copies"] = [c ^ 1 for c in e["copies"]]


def wrong_key(e):
    e["augment_keys"][5] = f"{int(e['augment_keys'][5], 16) ^ 1:016x}"


def key_of_other_seed(e):
    pairs = list(zip(e["sample_ids"], e["copies"], strict=True))
    e["augment_keys"] = keys_of(SEED + 1, e["epoch"], pairs)


def duplicate_sample(e):
    e["sample_ids"][1] = e["sample_ids"][0]
    keys_fit(e)


def unknown_sample(e):
    e["sample_ids"][0] = e["sample_ids"][8] = SAMPLES + 3
    keys_fit(e)


def mixed_ghost(e):
    """Copies interleaved, as tf.data's interleave or a reshape by mistake would give them."""
    table = np.arange(16).reshape(2, 8).T.reshape(-1)
    for name in ("sample_ids", "copies", "augment_keys"):
        e[name] = [e[name][i] for i in table]


def one_instance_less(e):
    for name in ("sample_ids", "copies", "augment_keys"):
        e[name].pop()


def other_epoch(e):
    e["epoch"] += 1


def other_group(e):
    e["group"] ^= 1


def other_lane(e):
    e["lane"] ^= 1


FAULTS = {
    swap_ids: "sample_ids are not those of .*: instance 0 has",
    swap_instances: "sample_ids are not those of .*: instance 2 has",
    wrong_copy: "copies are not those of .*: instance 0 has 3, expected 2",
    wrong_key: "augment_keys are not those of .*: instance 5 has",
    key_of_other_seed: "augment_keys are not those of",
    duplicate_sample: "the ghost batch from instance 0 holds two copies of one sample",
    unknown_sample: f"sample_ids are not those of .* has {SAMPLES + 3}, expected",
    mixed_ghost: "the ghost batch from instance 12 mixes copy indices",
    one_instance_less: "sample_ids are not those of .*: 15 entries, 16 expected",
    other_epoch: "says epoch 3, group 1, lane 1; it is epoch 2, group 1, lane 1",
    other_group: "says epoch 2, group 0, lane 1; it is epoch 2, group 1, lane 1",
    other_lane: "says epoch 2, group 1, lane 0; it is epoch 2, group 1, lane 1",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_one_wrong_entry_is_named(tmp_path, right, fault):
    fault(right[3][4])
    found = problems(tmp_path, right)
    assert any(re.fullmatch(f"step 4, rank 3: {FAULTS[fault]}.*", line) for line in found), found
    assert not [line for line in found if not re.match("step 4, (rank 3|all ranks):", line)]


def test_other_pixels_on_one_lane(tmp_path, right):
    right[3][2]["batch_sha256"] = "0" * 64
    assert problems(tmp_path, right) == ["step 2, rank 3: other pixels than lane 0 of its group"]


def test_groups_that_share_samples(tmp_path, right):
    """Group 1 trains on the samples of group 0, and all its entries agree with each other."""
    for lane in (0, 1):
        right[2 + lane][1] = {**right[lane][1], "group": 1}
    found = problems(tmp_path, right)
    assert "step 1, all ranks: 8 distinct samples, B is 16" in found
    assert "step 1, all ranks: 32 distinct of 64 instances, B·M is 64" in found
    assert {line.split(":")[0] for line in found} == {
        "step 1, rank 2",
        "step 1, rank 3",
        "step 1, all ranks",
    }


def test_lanes_that_hold_other_samples(tmp_path, right):
    right[1][0] = {**right[3][0], "group": 0}
    found = problems(tmp_path, right)
    assert "step 0, rank 1: other samples than lane 0 of its group" in found


def test_lanes_that_make_the_same_copies(tmp_path, right):
    right[1][0] = {**right[0][0], "lane": 1}
    found = problems(tmp_path, right)
    assert "step 0, all ranks: 48 distinct of 64 instances, B·M is 64" in found
    assert any(line.startswith("step 0, rank 1: copies are not those") for line in found)


def test_samples_used_again_in_an_epoch(tmp_path, right):
    for rank in range(4):
        right[rank][1] = {**right[rank][0], "step": 1}
    found = problems(tmp_path, right)
    for rank in range(4):
        again = right[rank][0]["sample_ids"][0]
        said = f"step 1, rank {rank}: sample_ids are not those of (seed, epoch, group, lane)"
        assert any(line.startswith(f"{said}: instance 0 has {again},") for line in found)
    assert not any(line.startswith(("step 0,", "step 2,")) for line in found)


@pytest.mark.parametrize("step", [0, 2, 4])
def test_a_step_missing_on_one_rank(tmp_path, right, step):
    del right[2][step]
    assert problems(tmp_path, right) == [f"step {step}, rank 2: not in the trace"]


@pytest.mark.parametrize("step", [0, 2, 4])
def test_a_step_missing_everywhere(tmp_path, right, step):
    for entries in right.values():
        del entries[step]
    assert problems(tmp_path, right, summary=5) == [f"step {step}, all ranks: not in the trace"]


def test_steps_missing_everywhere(tmp_path, right):
    for entries in right.values():
        del entries[2], entries[3]
    assert problems(tmp_path, right) == ["steps 2 to 3, all ranks: not in the trace"]


def test_a_step_done_twice(tmp_path, right):
    write(tmp_path, [(0, LAYOUT)], SAMPLES, right)
    with (tmp_path / "trace" / "rank-00001.jsonl").open("a") as file:
        file.write(json.dumps(right[1][3]) + "\n")
    said = "step 3, rank 1: more than once in the trace, or out of order, before step 5"
    assert audit(tmp_path)[1] == [said]


def test_no_step_at_all(tmp_path):
    assert problems(tmp_path, {rank: {} for rank in range(4)}) == ["the trace holds no step"]


# --- runs that moved to another number of ranks ---------------------------------------------------


def test_a_run_that_moved(tmp_path):
    """Four ranks, then two, then six; the same samples and copies at every step."""
    samples, trace = 75, {}
    worlds = [(0, 4), (3, 2), (5, 6)]
    jobs = [(first, Layout(w, 2, 24, ghost_batch_size=4)) for first, w in worlds]
    for (_, layout), steps in zip(jobs, [range(3), range(3, 5), range(5, 7)], strict=True):
        for rank, entries in entries_of(layout, samples, steps).items():
            trace.setdefault(rank, {}).update(entries)
    write(tmp_path, jobs, samples, trace)
    assert audit(tmp_path) == (7, [])
    trace[3][4] = {**trace[3][2], "step": 4}
    write(tmp_path, jobs, samples, trace)
    assert audit(tmp_path)[1] == ["step 4, rank 3: it ran on 2 ranks only"]


# --- what is no trace ---------------------------------------------------------------------------


def test_no_trace(tmp_path, right):
    del right[2]
    with pytest.raises(UserError, match=r"rank-00002.jsonl is missing; train with --trace"):
        problems(tmp_path, right)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": 1', "line 2 cannot be read"),
        ("7", "line 2 cannot be read"),
        ('{"step": 1}', "line 2 has no 'epoch'"),
        (None, "line 2: copies is 3"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path, right, line, message):
    write(tmp_path, [(0, LAYOUT)], SAMPLES, right)
    path = tmp_path / "trace" / "rank-00001.jsonl"
    line = line or json.dumps({**right[1][1], "copies": 3})
    path.write_text(path.read_text().splitlines()[0] + "\n" + line + "\n")
    with pytest.raises(UserError, match=f"rank-00001.jsonl {message}"):
        audit(tmp_path)


@pytest.mark.parametrize("extra", [{}, {"class_names": list("abcdefghij")}])
def test_facts_of_a_dataset_with_names_and_without(extra):
    info = replace(INFO, class_names=tuple(extra.get("class_names", ())))
    assert "class_names" not in info.stored()
    stored = json.loads(json.dumps({**info.stored(), **extra}))
    assert tasks.read_info("classification", stored) == info


@pytest.mark.parametrize("facts", ["{}", '{"layout": {}}', '{"layout": 3}'])
def test_a_configuration_of_something_else(tmp_path, facts):
    (tmp_path / "config.json").write_text(facts)
    with pytest.raises(UserError, match=r"config.json is not that of a run"):
        audit(tmp_path)
