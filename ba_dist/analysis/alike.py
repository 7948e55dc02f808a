"""Finds copies of a sample that are the same image although their augmentations differ."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.analysis.rules import Expected, Rules
from ba_dist.analysis.trace import Entry
from ba_dist.data.batch import InstanceMaker, Parameters
from ba_dist.rules.keys import Uint64s

# Single pairs can be equal by chance: a blank image, a symmetric one that is mirrored, a policy of
# AutoAugment that changes nothing. So many in a row cannot: even if every third pair were equal by
# chance, so long a chain would happen about once in 40 million pairs.
IN_A_ROW = 16
# Where the size of images varies, the trace does not have it. It hardly matters here.
_ANY_SIZE = 2**10


class CopiesChecker:
    """Compares the digests of every copy with those of copy 0 and of the copy before it.

    Copies m' < m of a sample must differ when different parameters were drawn for them. The
    samples of a run are taken in order, and a pair (m', m) is wrong when `IN_A_ROW` consecutive
    samples have the same pixels in both copies. Samples with equal parameters are skipped, so in a
    run with flips alone only those count of which one copy was flipped.

    Args:
        rules: of the run.
        task: of the run, which draws parameters.
    """

    def __init__(self, rules: Rules, task: InstanceMaker):
        self._rules, self._task = rules, task
        copies = rules.layouts[0][1].multiplicity
        neighbours = {(m - 1, m) for m in range(1, copies)}
        self._pairs = sorted(neighbours | {(0, m) for m in range(1, copies)})
        self._in_a_row: dict[tuple[int, int], int] = {}
        ghost = rules.layout(0).ghost_batch
        # Whether no augmentation is on, so that copies are equal and nothing can be checked.
        self.off = bool(self._pairs) and not self._draw(np.zeros(ghost, np.uint64), ghost)

    def check(
        self, step: int, entries: list[Entry | None], wanted: list[Expected]
    ) -> Iterator[str]:
        """Checks one step of all ranks; `wanted` is what each rank should have trained on."""
        if not self._pairs or self.off:
            return
        layout = self._rules.layout(step)
        for group in range(layout.groups):
            ranks = range(group * layout.group_size, (group + 1) * layout.group_size)
            lanes = [entries[rank] for rank in ranks]
            digests = [entry["instance_sha256"] for entry in lanes if entry]
            if [len(row) for row in digests] != [layout.instances_per_rank] * len(lanes):
                continue  # another check reports it
            table = np.array(digests).reshape(layout.multiplicity, layout.group_batch)
            keys = np.concatenate([wanted[rank].keys for rank in ranks]).reshape(table.shape)
            for pair in self._pairs:
                if self._chain(pair, table, keys, layout.ghost_batch):
                    yield (
                        f"step {step}, group {group}: copies {pair[0]} and {pair[1]} of {IN_A_ROW}"
                        " samples in a row are the same image, though augmented differently"
                    )

    def _chain(
        self, pair: tuple[int, int], table: npt.NDArray[Any], keys: Uint64s, ghost: int
    ) -> bool:
        """Continues a pair's chain of equal samples; returns whether it has become too long."""
        alike = table[pair[0]] == table[pair[1]]
        if not alike.any():
            self._in_a_row.pop(pair, None)
            return False
        moved = self._differ(keys[pair[0]], keys[pair[1]], ghost)
        length, reached = self._in_a_row.get(pair, 0), False
        for same in alike[moved]:
            length = length + 1 if same else 0
            reached |= length == IN_A_ROW
        self._in_a_row[pair] = length
        return reached

    def _differ(self, keys: Uint64s, others: Uint64s, ghost: int) -> npt.NDArray[np.bool_]:
        """Whether different parameters are drawn from the two keys of each sample, bool [b]."""
        differ = np.zeros(len(keys), bool)
        drawn = self._draw(others, ghost)
        for name, values in self._draw(keys, ghost).items():
            differ |= (values != drawn[name]).reshape(len(keys), -1).any(axis=1)
        return differ

    def _draw(self, keys: Uint64s, ghost: int) -> Parameters:
        shape = [side or _ANY_SIZE for side in self._task.sample_shape]
        return self._task.draw(keys, np.tile(shape, (len(keys), 1)), ghost)
