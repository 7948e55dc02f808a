"""Checks the invariants of batch augmentation from the trace of a run.

Everything is recomputed from B, M, the seed and the layout in config.json, so a trace that agrees
with itself but not with them is found as well.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ba_dist.errors import UserError
from ba_dist.run_dir import read_json
from ba_dist.sampling import Permutation, augmentation_keys, step_positions
from ba_dist.topology import Layout

Entries = list[dict[str, Any]]
_FIELDS = {
    "step", "epoch", "group", "lane", "sample_ids", "copies", "augment_keys", "batch_sha256",
}  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """What a run was told to compute, and where."""

    layout: Layout
    seed: int
    num_samples: int
    steps_per_epoch: int


def audit(run_dir: Path) -> tuple[int, list[str]]:
    """Audits a run that was made with `--trace`.

    Returns:
        How many steps were checked, and a line for every broken rule, naming step and rank.

    Raises:
        UserError: when the folder holds no trace.
    """
    rules = _rules(read_json(run_dir / "config.json"))
    ranks = [_read(run_dir, rank) for rank in range(rules.layout.world_size)]
    steps = sorted({step for entries in ranks for step in entries})
    problems = list(_check_steps_present(ranks, steps))
    seen: dict[int, set[int]] = {}
    for step in steps:
        entries = [rank.get(step) for rank in ranks]
        if all(entries):
            whole = [entry for entry in entries if entry]
            problems += _check_step(rules, step, whole, seen)
    return len(steps), problems


def _rules(facts: dict[str, Any]) -> Rules:
    layout = Layout(**{name: facts["layout"][name] for name in Layout.__dataclass_fields__})
    return Rules(layout, facts["config"]["run"]["seed"], facts["samples"], facts["steps_per_epoch"])


def _read(run_dir: Path, rank: int) -> dict[int, dict[str, Any]]:
    path = run_dir / "trace" / f"rank-{rank:05d}.jsonl"
    if not path.is_file():
        raise UserError(f"{path} is missing; train with --trace to have a run that can be audited")
    entries = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            entry = json.loads(line)
            missing = _FIELDS - set(entry)
        except ValueError:
            raise UserError(f"{path} line {number} cannot be read") from None
        if missing:
            raise UserError(f"{path} line {number} has no {', '.join(sorted(missing))}")
        entries[entry["step"]] = entry
    return entries


def _check_steps_present(ranks: list[dict[int, Any]], steps: list[int]) -> Iterator[str]:
    if not steps:
        yield "the trace holds no step"
        return
    for step in range(steps[0], steps[-1] + 1):
        for rank, entries in enumerate(ranks):
            if step not in entries:
                yield f"step {step}, rank {rank}: not in the trace"


def _check_step(
    rules: Rules, step: int, entries: Entries, seen: dict[int, set[int]]
) -> Iterator[str]:
    epoch, step_in_epoch = divmod(step, rules.steps_per_epoch)
    order = Permutation(rules.num_samples, rules.seed, epoch)
    for rank, entry in enumerate(entries):
        for problem in _check_rank(rules, order, epoch, step_in_epoch, rank, entry):
            yield f"step {step}, rank {rank}: {problem}"
    for problem in _check_groups(rules.layout, entries):
        yield f"step {step}, {problem}"
    fresh = {sample for entry in entries for sample in entry["sample_ids"]}
    if again := sorted(fresh & seen.setdefault(epoch, set())):
        yield f"step {step}, all ranks: sample {again[0]} was used before in epoch {epoch}"
    seen[epoch] |= fresh


def _check_rank(
    rules: Rules, order: Permutation, epoch: int, step_in_epoch: int, rank: int, entry: Any
) -> Iterator[str]:
    """One rank's instances against what B, M, seed and layout say they are."""
    layout = rules.layout
    group, copies = layout.group(rank), np.array(layout.copies(rank))
    if (entry["epoch"], entry["group"], entry["lane"]) != (epoch, group, layout.lane(rank)):
        yield (
            f"says epoch {entry['epoch']}, group {entry['group']}, lane {entry['lane']};"
            f" it is epoch {epoch}, group {group}, lane {layout.lane(rank)}"
        )
    positions = step_positions(step_in_epoch, group, layout.batch_size, layout.group_batch)
    ids = order(positions)
    expected_ids, expected_copies = np.tile(ids, len(copies)), np.repeat(copies, len(ids))
    keys = augmentation_keys(rules.seed, epoch, expected_ids, expected_copies)
    expected = {
        "sample_ids": expected_ids.tolist(),
        "copies": expected_copies.tolist(),
        "augment_keys": [f"{key:016x}" for key in keys],
    }
    for name, values in expected.items():
        if entry[name] != values:
            difference = _difference(entry[name], values)
            yield f"{name} are not those of (seed, epoch, group, lane){difference}"
    yield from _check_ghosts(entry, layout.ghost_batch)


def _check_ghosts(entry: Any, size: int) -> Iterator[str]:
    instances = list(zip(entry["sample_ids"], entry["copies"], strict=False))
    for start in range(0, len(instances), size):
        ghost = instances[start : start + size]
        if len({sample for sample, _ in ghost}) < len(ghost):
            yield f"the ghost batch from instance {start} holds two copies of one sample"
        if len({copy for _, copy in ghost}) > 1:
            yield f"the ghost batch from instance {start} mixes copy indices"


def _check_groups(layout: Layout, entries: Entries) -> Iterator[str]:
    """The ranks against each other: lanes alike, groups disjoint, every instance exactly once."""
    samples = []
    for group in range(layout.groups):
        first = group * layout.group_size
        lanes = entries[first : first + layout.group_size]
        batch = list(dict.fromkeys(lanes[0]["sample_ids"]))
        for lane, entry in enumerate(lanes):
            if list(dict.fromkeys(entry["sample_ids"])) != batch:
                yield f"rank {first + lane}: other samples than lane 0 of its group"
            if entry["batch_sha256"] != lanes[0]["batch_sha256"]:
                yield f"rank {first + lane}: other pixels than lane 0 of its group"
        samples += batch
    if len(set(samples)) != layout.batch_size:
        yield f"all ranks: {len(set(samples))} distinct samples, B is {layout.batch_size}"
    pairs = [pair for e in entries for pair in zip(e["sample_ids"], e["copies"], strict=False)]
    wanted = layout.batch_size * layout.multiplicity
    if len(pairs) != wanted or len(set(pairs)) != wanted:
        yield f"all ranks: {len(set(pairs))} distinct of {len(pairs)} instances, B·M is {wanted}"


def _difference(found: list[Any], expected: list[Any]) -> str:
    if len(found) != len(expected):
        return f": {len(found)} entries, {len(expected)} expected"
    index = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
    return f": instance {index} has {found[index]}, expected {expected[index]}"
