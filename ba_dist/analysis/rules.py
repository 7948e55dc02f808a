"""What B, M, the seed and the layout in config.json demand of the lines of a trace."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.analysis.trace import Entry
from ba_dist.rules.keys import Uint64s, augmentation_keys
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import Permutation, Shuffle, step_positions

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rules:
    """What a run had to compute, and where.

    Args:
        layouts: (first step, layout) of its jobs; a run may continue on another number of ranks.
        seed: the run's seed.
        num_samples: N.
        steps_per_epoch: N // B.
        order: makes the order of an epoch.
    """

    layouts: list[tuple[int, Layout]]
    seed: int
    num_samples: int
    steps_per_epoch: int
    order: Shuffle = Permutation

    def layout(self, step: int) -> Layout:
        """The layout that a step ran with."""
        return [layout for first, layout in self.layouts if first <= step][-1]

    def world_size(self, step: int) -> int:
        """The ranks that a step ran on."""
        return self.layout(step).world_size

    @property
    def ranks(self) -> int:
        """The largest number of ranks of any job."""
        return max(layout.world_size for _, layout in self.layouts)


@dataclass(frozen=True)
class Expected:
    """The instances that a rank should have trained on in a step, in its order.

    Args:
        sample_ids: int64 [b·K].
        copies: int64 [b·K].
        keys: uint64 [b·K].
    """

    sample_ids: Ids
    copies: Ids
    keys: Uint64s


def _expected(rules: Rules, step: int, rank: int, samples: Ids) -> Expected:
    """The instances of a rank whose group holds these samples, int64 [b]."""
    copies = np.array(rules.layout(step).copies(rank))
    ids, copies = np.tile(samples, len(copies)), np.repeat(copies, len(samples))
    keys = augmentation_keys(rules.seed, step // rules.steps_per_epoch, ids, copies)
    return Expected(ids, copies, keys)


@dataclass
class Checker:
    """Checks the steps one after the other.

    Every sample must be used once in an epoch. To check that, the samples that were used need not
    be remembered: a step's ids must be those at its positions in the epoch's order, the order is a
    bijection of 0 … N-1, and no two groups or steps share a position. Samples that replace corrupt
    ones are the exception, so the corrupt samples of the epoch are kept; --corrupt-budget limits
    how many there can be.

    Args:
        rules: of the run.
    """

    rules: Rules
    _epoch: int = -1
    _order: Any = None
    _corrupt: set[int] = field(default_factory=set)

    def check(self, step: int, entries: list[Entry | None]) -> tuple[list[str], list[Expected]]:
        """Checks one step of all ranks.

        Returns:
            A line for every broken rule, and what each rank of the step should have trained on.
        """
        rules, layout = self.rules, self.rules.layout(step)
        epoch, step_in_epoch = divmod(step, rules.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._corrupt = epoch, set()
            self._order = rules.order(rules.num_samples, rules.seed, epoch)
        problems: list[str] = []
        wanted: list[Expected] = []
        replaced: list[tuple[int, int]] = []
        for rank, entry in enumerate(entries):
            if rank >= layout.world_size:
                found = [f"it ran on {layout.world_size} ranks only"] if entry else []
            else:
                group = layout.group(rank)
                positions = step_positions(
                    step_in_epoch, group, layout.batch_size, layout.group_batch
                )
                found, ids = self._replace(entry, positions)
                wanted.append(_expected(rules, step, rank, ids))
                replaced += entry["replaced"].items() if entry else []
                found += self._check_rank(step, rank, entry, wanted[rank])
            problems += [f"step {step}, rank {rank}: {problem}" for problem in found]
        self._corrupt |= {corrupt for corrupt, _ in replaced}
        whole = [entry for entry in entries[: layout.world_size] if entry]
        if len(whole) == layout.world_size:
            problems += [f"step {step}, {problem}" for problem in _check_groups(layout, whole)]
        return problems, wanted

    def _replace(self, entry: Entry | None, positions: Ids) -> tuple[list[str], Ids]:
        """Problems of the replacements of corrupt samples, and the ids that these lead to.

        A corrupt sample is replaced by the sample at the same position of the next step of the
        epoch; if that is corrupt too, of the step after it, and so on.
        """
        problems, ids = [], self._order(positions)
        size = self.rules.layouts[0][1].batch_size
        steps = self.rules.steps_per_epoch
        for corrupt, instead in entry["replaced"].items() if entry else ():
            rows = np.flatnonzero(ids == corrupt)
            candidates = np.zeros(0, np.int64)
            if len(rows):
                step, row_in_batch = divmod(int(positions[rows[0]]), size)
                later = (step + np.arange(1, steps)) % steps
                candidates = self._order(later * size + row_in_batch)
            if instead not in candidates:
                problems.append(f"sample {instead} may not take the place of sample {corrupt}")
                continue
            ids[rows] = instead
            passed = candidates[: candidates.tolist().index(instead)]
            earlier = later[: len(passed)] < step
            trained_on = set(passed[earlier].tolist()) - self._corrupt
            problems += [
                f"sample {sample} was passed over for sample {corrupt}, but trained on before"
                for sample in sorted(trained_on)
            ]
            self._corrupt |= set(passed.tolist())
        if entry and self._corrupt:
            problems += [
                f"sample {sample} was corrupt before in epoch {self._epoch + 1}"
                for sample in sorted(self._corrupt & set(ids.tolist()))
            ]
        return problems, ids

    def _check_rank(
        self, step: int, rank: int, entry: Entry | None, wanted: Expected
    ) -> Iterator[str]:
        """Compares one rank's instances with what B, M, seed and layout demand."""
        if entry is None:
            yield "not in the trace"
            return
        layout = self.rules.layout(step)
        where = self._epoch, layout.group(rank), layout.lane(rank)
        told = entry["epoch"], entry["group"], entry["lane"]
        if told != where:
            yield f"says {_where(*told)}; it is {_where(*where)}"
        lists = {
            "sample_ids": wanted.sample_ids.tolist(),
            "copies": wanted.copies.tolist(),
            "augment_keys": [f"{key:016x}" for key in wanted.keys],
        }
        for name, values in lists.items():
            if entry[name] != values:
                difference = _difference(entry[name], values)
                yield f"{name} are not those of (seed, epoch, group, lane){difference}"
        if len(entry["instance_sha256"]) != len(wanted.keys):
            found = len(entry["instance_sha256"])
            yield f"instance_sha256: {found} entries, {len(wanted.keys)} expected"
        yield from _check_ghosts(entry, layout.ghost_batch)


def _where(epoch: int, group: int, lane: int) -> str:
    """As people count: a trace has the first epoch as 0, they as 1."""
    return f"epoch {epoch + 1}, group {group}, lane {lane}"


def _check_ghosts(entry: Entry, size: int) -> Iterator[str]:
    instances = list(zip(entry["sample_ids"], entry["copies"], strict=False))
    for start in range(0, len(instances), size):
        ghost = instances[start : start + size]
        if len({sample for sample, _ in ghost}) < len(ghost):
            yield f"the ghost batch from instance {start} holds two copies of one sample"
        if len({copy for _, copy in ghost}) > 1:
            yield f"the ghost batch from instance {start} mixes copy indices"


def _check_groups(layout: Layout, entries: list[Entry]) -> Iterator[str]:
    """Compares ranks: lanes have one batch, groups different ones, each instance is there once."""
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
