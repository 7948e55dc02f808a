"""Random access to samples by id: `read` fetches an encoded record, `decode` makes an image of it.

Reading and decoding are apart so that a group can share either. A record is bytes and holds the
label. Both are called from several threads at a time.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Images = list[Image]
Labels = npt.NDArray[np.int64]

# Memory of so many bytes to decode into; a reader passes memory that its group shares.
Place = Callable[[int], npt.NDArray[np.uint8]]


def new_memory(size: int) -> npt.NDArray[np.uint8]:
    """Memory of one's own."""
    return np.empty(size, np.uint8)


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
            CorruptRecord: saying why, when a checksum or a length shows that it is damaged.
        """
        ...

    def decode(self, record: bytes, place: Place = new_memory) -> tuple[Image, int]:
        """The image uint8 [H, W, C], in memory from `place`, and the label of a record.

        Raises:
            CorruptRecord: saying why it cannot be decoded.
        """
        ...

    def where(self, sample_id: int) -> str:
        """The file and the place in it, for a person to look at."""
        ...


T = TypeVar("T")
S = TypeVar("S")


class Workers:
    """A few threads that do a piece of work for each of many items, in order.

    Args:
        threads: how many; with one, the calling thread does it all.
    """

    def __init__(self, threads: int):
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, "worker") if threads > 1 else None

    def map(self, work: Callable[[T], S], items: list[T]) -> list[S]:
        """`[work(item) for item in items]`; raises what the first failing item raised."""
        if self._pool is None or len(items) < 2:
            return [work(item) for item in items]
        # A thread takes a share at a time: handing over each small item would cost more than it.
        share = -(-len(items) // self.threads)
        shares = [items[i : i + share] for i in range(0, len(items), share)]
        parts = self._pool.map(lambda part: [work(item) for item in part], shares)
        return [result for part in parts for result in part]

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()


@contextmanager
def workers(threads: int) -> Iterator[Workers]:
    """Workers for the length of a block."""
    pool = Workers(threads)
    try:
        yield pool
    finally:
        pool.close()


@dataclass
class ArraySource:
    """Images held in memory; a record is the label as 8 bytes, then the pixels.

    Args:
        info: of the dataset.
        images: uint8 [N, H, W, C].
        labels: int64 [N].
        digest: names the content.
    """

    info: DatasetInfo
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    digest: str
    counters: Counters = field(default_factory=Counters)

    stored = False

    def __post_init__(self) -> None:
        self.contents = [self.digest]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, sample_id: int) -> bytes:
        self.counters.add(records_read=1)
        return self.labels[sample_id].tobytes() + self.images[sample_id].tobytes()

    def decode(self, record: bytes, place: Place = new_memory) -> tuple[Image, int]:
        self.counters.add(records_decoded=1)
        return put(np.frombuffer(record, np.uint8, offset=8), self.info.image_shape, place), int(
            np.frombuffer(record, np.int64, 1)[0]
        )

    def where(self, sample_id: int) -> str:
        return f"{self.info.name}, sample {sample_id} in memory"


def put(pixels: npt.NDArray[Any], shape: tuple[int, ...], place: Place) -> Image:
    """A copy of these pixels, in memory from `place`."""
    memory = place(pixels.nbytes)
    memory[:] = pixels.reshape(-1)
    return memory.reshape(shape)
