"""Checks the invariants of batch augmentation from the trace of a run.

Everything is recomputed from B, M, the seed and the layout in config.json, so a trace that agrees
with itself but not with them is found as well.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ba_dist.config import Data
from ba_dist.errors import UserError
from ba_dist.run_dir import read_json
from ba_dist.sampling import Permutation, Shuffle, augmentation_keys, shuffle, step_positions
from ba_dist.topology import Layout

Entries = list[dict[str, Any]]
_LISTS = ("sample_ids", "copies", "augment_keys")
_FIELDS = ("step", "epoch", "group", "lane", *_LISTS, "batch_sha256")


@dataclass(frozen=True)
class Rules:
    """What a run was told to compute, and where.

    Args:
        layouts: (first step, layout) of its jobs; a run may go on with another number of ranks.
        seed: of the run.
        num_samples: N.
        steps_per_epoch: N // B.
        order: of an epoch.
    """

    layouts: list[tuple[int, Layout]]
    seed: int
    num_samples: int
    steps_per_epoch: int
    order: Shuffle = Permutation

    def layout(self, step: int) -> Layout:
        """The layout that a step ran with."""
        return [layout for first, layout in self.layouts if first <= step][-1]


def audit(run_dir: Path) -> tuple[int, list[str]]:
    """Audits a run that was made with `--trace`.

    Returns:
        How many steps were checked, and a line for every broken rule, naming step and rank.

    Raises:
        UserError: when the folder holds no trace.
    """
    rules = _rules(run_dir / "config.json")
    ranks, problems = [], []
    for rank in range(max(layout.world_size for _, layout in rules.layouts)):
        entries, again = _read(run_dir, rank)
        ranks.append(entries)
        problems += [f"step {step}, rank {rank}: more than once in the trace" for step in again]
    steps = max((step + 1 for entries in ranks for step in entries), default=0)
    if (run_dir / "summary.json").exists():
        steps = max(steps, read_json(run_dir / "summary.json").get("steps", 0))
    if steps == 0:
        problems.append("the trace holds no step")
    seen: set[int] = set()
    for step in range(steps):
        entries_of_step = [entries.get(step) for entries in ranks]
        problems += _check_step(rules, step, entries_of_step, seen)
    return steps, problems


def _rules(path: Path) -> Rules:
    facts = read_json(path)
    try:
        jobs = facts.get("layouts") or [[0, facts["layout"]]]
        names = Layout.__dataclass_fields__
        layouts = [(first, Layout(**{name: at[name] for name in names})) for first, at in jobs]
        seed = facts["config"]["run"]["seed"]
        data = {**asdict(Data()), **facts["config"].get("data", {})}
        order = shuffle(data["shuffle"], data["shuffle_block"], data["shuffle_window"])
        return Rules(layouts, seed, facts["samples"], facts["steps_per_epoch"], order)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not that of a run: {error!r}") from None


def _read(run_dir: Path, rank: int) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """Step → entry of a rank, and the steps of which it has more than one."""
    path = run_dir / "trace" / f"rank-{rank:05d}.jsonl"
    if not path.is_file():
        raise UserError(f"{path} is missing; train with --trace to have a run that can be audited")
    entries: dict[int, dict[str, Any]] = {}
    again = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            entry = json.loads(line)
            odd = [name for name in _FIELDS if isinstance(entry[name], list) != (name in _LISTS)]
        except KeyError as error:
            raise UserError(f"{path} line {number} has no {error}") from None
        except (ValueError, TypeError):
            raise UserError(f"{path} line {number} cannot be read") from None
        if odd:
            raise UserError(f"{path} line {number}: {odd[0]} is {entry[odd[0]]!r}")
        if entry["step"] in entries:
            again.append(entry["step"])
        entries[entry["step"]] = entry
    return entries, again


def _check_step(rules: Rules, step: int, entries: list[Any], seen: set[int]) -> Iterator[str]:
    """One step of all ranks; `seen` are the samples used before in its epoch, and grows."""
    layout = rules.layout(step)
    epoch, step_in_epoch = divmod(step, rules.steps_per_epoch)
    if step_in_epoch == 0:
        seen.clear()
    order = rules.order(rules.num_samples, rules.seed, epoch)
    for rank, entry in enumerate(entries):
        if rank >= layout.world_size:
            if entry:
                yield f"step {step}, rank {rank}: it ran on {layout.world_size} ranks only"
        elif not entry:
            yield f"step {step}, rank {rank}: not in the trace"
        else:
            positions = step_positions(
                step_in_epoch, layout.group(rank), layout.batch_size, layout.group_batch
            )
            usable = rules.steps_per_epoch * layout.batch_size
            replaced, ids = _replace(entry, order, positions, usable, layout.batch_size)
            for problem in [*replaced, *_check_rank(layout, rules.seed, epoch, ids, rank, entry)]:
                yield f"step {step}, rank {rank}: {problem}"
    whole = [entry for entry in entries[: layout.world_size] if entry]
    if len(whole) == layout.world_size:
        for problem in _check_groups(layout, whole):
            yield f"step {step}, {problem}"
    fresh = {
        sample
        for entry in whole
        for sample in {*entry["sample_ids"]} - {*entry.get("replaced", {}).values()}
    }
    if again := sorted(fresh & seen):
        yield f"step {step}, all ranks: sample {again[0]} was used before in epoch {epoch}"
    seen |= fresh


def _replace(
    entry: dict[str, Any], order: Any, positions: Any, usable: int, batch_size: int
) -> tuple[list[str], Any]:
    """Problems of the replacements of corrupt samples, and the ids that these should have led to.

    In the place of a corrupt sample comes one from the same place of another step of the epoch.
    """
    problems, ids = [], order(positions)
    for corrupt, instead in entry.get("replaced", {}).items():
        places = np.flatnonzero(ids == int(corrupt))
        candidates = np.zeros(0, np.int64)
        if len(places):
            candidates = order(np.arange(positions[places[0]] % batch_size, usable, batch_size))
        if instead in candidates:
            ids[places] = instead
        else:
            problems.append(f"sample {instead} may not take the place of sample {corrupt}")
    return problems, ids


def _check_rank(
    layout: Layout, seed: int, epoch: int, ids: Any, rank: int, entry: dict[str, Any]
) -> Iterator[str]:
    """One rank's instances against what B, M, seed and layout say they are."""
    group, lane, copies = layout.group(rank), layout.lane(rank), np.array(layout.copies(rank))
    if (entry["epoch"], entry["group"], entry["lane"]) != (epoch, group, lane):
        yield (
            f"says epoch {entry['epoch']}, group {entry['group']}, lane {entry['lane']};"
            f" it is epoch {epoch}, group {group}, lane {lane}"
        )
    expected_ids, expected_copies = np.tile(ids, len(copies)), np.repeat(copies, len(ids))
    keys = augmentation_keys(seed, epoch, expected_ids, expected_copies)
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


def _check_ghosts(entry: dict[str, Any], size: int) -> Iterator[str]:
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
