"""Random access to samples by id: `read` fetches encoded records, `decode` makes images of them.

Reading and decoding are apart so that a group can share either. A record is bytes and
holds the label.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ba_dist.sampling import combine

Images = list[npt.NDArray[np.uint8]]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DatasetInfo:
    """What a model and an augmentation need to know of a dataset.

    Args:
        name: of the dataset.
        image_shape: (H, W, C) of every image; H = W = 0 where it varies.
        classes: how many.
        mean: of the pixels in 0 … 1, one a channel.
        std: their standard deviation, one a channel.
    """

    name: str
    image_shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass
class Counters:
    """What reading has cost so far on this rank."""

    records_read: int = 0
    bytes_read: int = 0
    records_decoded: int = 0
    files_opened: int = 0
    bytes_exchanged: int = 0


class Source(Protocol):
    """Samples 0 … len-1. `counters` is counted up by `read` and `decode`."""

    info: DatasetInfo
    digest: str
    counters: Counters

    def __len__(self) -> int: ...

    def read(self, ids: npt.NDArray[np.int64]) -> list[bytes]:
        """The encoded records of these samples, in order."""
        ...

    def decode(self, records: Sequence[bytes]) -> tuple[Images, Labels]:
        """Images uint8 [H, W, C] and labels int64 [n] of records."""
        ...


@dataclass
class ArraySource:
    """Images held in memory; a record is the label as 8 bytes, then the pixels.

    Args:
        info: of the dataset.
        images: uint8 [N, H, W, C].
        labels: integers [N].
        digest: names the content.
    """

    info: DatasetInfo
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    digest: str
    counters: Counters = field(default_factory=Counters)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, ids: npt.NDArray[np.int64]) -> list[bytes]:
        self.counters.records_read += len(ids)
        return [self.labels[i].tobytes() + self.images[i].tobytes() for i in ids]

    def decode(self, records: Sequence[bytes]) -> tuple[Images, Labels]:
        self.counters.records_decoded += len(records)
        # A lane of a group with more ranks than samples decodes none.
        size = 8 + int(np.prod(self.info.image_shape))
        rows = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), size)
        labels = np.ascontiguousarray(rows[:, :8]).view(np.int64)[:, 0]
        return list(rows[:, 8:].reshape(len(records), *self.info.image_shape)), labels


@dataclass
class SyntheticSource:
    """Noise that is a function of the sample id; costs no storage. A record is the id.

    Args:
        info: its image shape and classes.
        count: N.
        seed: names the noise.
    """

    info: DatasetInfo
    count: int
    seed: int = 0
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self.digest = f"synthetic-{self.count}-{self.info.image_shape}-{self.seed}"

    def __len__(self) -> int:
        return self.count

    def read(self, ids: npt.NDArray[np.int64]) -> list[bytes]:
        self.counters.records_read += len(ids)
        return [np.int64(i).tobytes() for i in ids]

    def decode(self, records: Sequence[bytes]) -> tuple[Images, Labels]:
        self.counters.records_decoded += len(records)
        ids = np.frombuffer(b"".join(records), np.int64)
        return [self._image(i) for i in ids], ids % self.info.classes

    def _image(self, sample_id: int) -> npt.NDArray[np.uint8]:
        size = int(np.prod(self.info.image_shape))
        noise = combine(self.seed, sample_id, np.arange(-(-size // 8)))
        return noise.view(np.uint8)[:size].reshape(self.info.image_shape)
