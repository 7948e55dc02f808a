"""What is found of a dataset, and how any rank opens it from that.

The process that finds lists folders and reads indexes; the catalog sends the result to all ranks.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.data.sources import DatasetInfo, Source
from ba_dist.rules.order import subset_ids

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Split:
    """What was found of one split.

    Args:
        count: number of samples to use.
        open: (info, this split) → the source; a function of a module, so that it can be sent.
        facts: small values for `open`; file names are relative to the root.
        arrays: large arrays for `open`; each node has them once.
        root: the folder of the files, which may differ between nodes.
        sample: names of up to 64 files, spread over all, to look for on every node.
        rows: whether the arrays have a row for each sample; elsewhere they are small.
    """

    count: int
    open: "Opener"
    facts: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)
    root: Path = Path()
    sample: list[str] = field(default_factory=list)
    rows: bool = False

    def paths(self, names: list[str]) -> list[Path]:
        """The paths of these files on this node."""
        return [self.root / name for name in names]

    def subset(self, wanted: int) -> "Split":
        """This split with an even share of its samples; see `subset_ids`."""
        arrays = self.arrays
        if self.rows:
            taken = subset_ids(np.arange(wanted), wanted, self.count)
            arrays = {name: array[taken] for name, array in arrays.items()}
        return dataclasses.replace(self, count=wanted, arrays=arrays)


Opener = Callable[[Any, Split], Source]  # the info is that of its kind of samples


@dataclass(frozen=True)
class Found:
    """What was found of a dataset.

    Args:
        info: facts of the dataset.
        origin: where it is and in which form, for messages.
        splits: by the names of SPLITS.
    """

    info: DatasetInfo
    origin: str
    splits: dict[str, Split]


@dataclass
class Subset:
    """An even share of the samples of a source, in the order that they are stored in.

    Args:
        source: all samples.
        count: number of samples in the share.
    """

    source: Source
    count: int

    def __post_init__(self) -> None:
        self.info, self.counters = self.source.info, self.source.counters
        self.contents, self.stored = self.source.contents, self.source.stored
        self.decode = self.source.decode

    def __len__(self) -> int:
        return self.count

    def read(self, sample_id: int) -> bytes:
        return self.source.read(self._of_all(sample_id))

    def where(self, sample_id: int) -> str:
        return self.source.where(self._of_all(sample_id))

    def _of_all(self, sample_id: int) -> int:
        return int(subset_ids(sample_id, self.count, len(self.source)))


def open_split(info: DatasetInfo, split: Split) -> Source:
    """The source of a split that was found."""
    source = split.open(info, split)
    return source if len(source) == split.count else Subset(source, split.count)
