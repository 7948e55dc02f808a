"""Random access to samples by id: `read` fetches an encoded record, `decode` makes an image of it.

Reading and decoding are apart so that a group can share either. A record is bytes and holds the
label. Both are called from several threads at a time.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Images = list[Image]
Labels = npt.NDArray[np.int64]

# Number of bytes → memory to decode into; a reader passes one whose memory its group shares.
Allocate = Callable[[int], npt.NDArray[np.uint8]]


def new_memory(size: int) -> npt.NDArray[np.uint8]:
    """Memory of one's own."""
    return np.empty(size, np.uint8)


def put(pixels: npt.NDArray[Any], shape: tuple[int, ...], allocate: Allocate) -> Image:
    """A copy of these pixels, in memory from `allocate`."""
    memory = allocate(pixels.nbytes)
    memory[:] = pixels.reshape(-1)
    return memory.reshape(shape)


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
    """What reading has cost so far on this rank. Add by `add`: several threads count."""

    records_read: int = 0
    bytes_read: int = 0
    records_decoded: int = 0
    files_opened: int = 0
    bytes_exchanged: int = 0
    records_skipped: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, **counts: int) -> None:
        """Counts up, e.g. `add(records_read=1, bytes_read=87_000)`."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)

    def as_dict(self) -> dict[str, int]:
        """Name → count."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


class Source(Protocol):
    """Samples 0 … len-1.

    `stored` tells that records come from storage, or take time to decode, so that threads pay.
    `contents` names what the source is made of, a line each (files with their sizes, or a digest
    of all bytes), so that ranks can tell whether they see the same data, and where it differs.
    `counters` is counted up by `read` and `decode`.
    """

    info: DatasetInfo
    stored: bool
    contents: list[str]
    counters: Counters

    def __len__(self) -> int: ...

    def read(self, sample_id: int) -> bytes:
        """The encoded record of a sample.

        Raises:
            CorruptRecord: saying why, when a checksum or a length shows that it is corrupt.
        """
        ...

    def decode(self, record: bytes, allocate: Allocate = new_memory) -> tuple[Image, int]:
        """The image uint8 [H, W, C], in memory from `allocate`, and the label of a record.

        Raises:
            CorruptRecord: saying why it cannot be decoded.
        """
        ...

    def where(self, sample_id: int) -> str:
        """The file and the place in it, for a person to look at."""
        ...
