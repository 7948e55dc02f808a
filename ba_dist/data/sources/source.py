"""What a source is: `read` gives the encoded record of a sample, `decode` makes an array of it.

The two are separate so that a group can share records or decoded samples. A record is bytes, and
holds the label. Several threads call both at a time.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ba_dist.errors import DataError

Image = npt.NDArray[np.uint8]
# A decoded sample of any kind; its dtype is that of the dataset.
Sample = npt.NDArray[Any]
Labels = npt.NDArray[np.int64]

# Number of bytes → memory to decode into; a reader passes one whose memory its group shares.
Allocate = Callable[[int], npt.NDArray[np.uint8]]


def new_memory(size: int) -> npt.NDArray[np.uint8]:
    """`size` bytes of this process's own memory."""
    return np.empty(size, np.uint8)


def put(pixels: npt.NDArray[Any], shape: tuple[int, ...], allocate: Allocate) -> Image:
    """A copy of some pixels, in memory from `allocate`, as an array of this shape."""
    memory = allocate(pixels.nbytes)
    memory[:] = pixels.reshape(-1)
    return memory.reshape(shape)


@dataclass(frozen=True)
class DatasetInfo:
    """What a task needs to know of a dataset; a kind of samples has a subclass.

    `dtype` is that of a decoded sample, the same for all of a kind.

    Args:
        name: as `--dataset` has it.
    """

    dtype: ClassVar[str] = "uint8"

    name: str

    def stored(self) -> dict[str, Any]:
        """Field → value as config.json keeps it: without what the data itself says again."""
        kept = (f.name for f in fields(self) if f.metadata.get("stored", True))
        return {name: getattr(self, name) for name in kept}

    def files(self) -> dict[str, bytes]:
        """Name → content of what a run keeps beside config.json, to be used without the data."""
        return {}

    @property
    def vocabulary_digest(self) -> str | None:
        """Of the words that the numbers of a sample stand for; None where they are pixels."""
        return None

    def check_fits(self, trained_on: str | None) -> None:
        """Looks whether a network that was trained on other data can be used with this.

        Args:
            trained_on: the `vocabulary_digest` of that data.

        Raises:
            DataError: when the same number is another word here.
        """
        if trained_on != self.vocabulary_digest:
            there, here = (str(digest)[:12] for digest in (trained_on, self.vocabulary_digest))
            raise DataError(
                f"{self.name} has other words here (the vocabulary {here}…) than the run was"
                f" trained on ({there}…): the same number would be another word; use the data and"
                " the vocabulary of the run"
            )


@dataclass(frozen=True)
class ImageInfo(DatasetInfo):
    """What a network and an augmentation need to know of a dataset of images and classes.

    Args:
        name: as `--dataset` has it.
        image_shape: (H, W, C) of every image; H = W = 0 where the size varies.
        classes: number of classes.
        mean: of the pixels in 0 … 1, one for each channel.
        std: standard deviation of the same, one for each channel.
        class_names: in order of the labels; empty where the dataset has none.
    """

    image_shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = field(default=(), metadata={"stored": False})


@dataclass
class Counters:
    """How much this rank has read so far. Several threads count, so use `add`."""

    records_read: int = 0
    bytes_read: int = 0
    records_decoded: int = 0
    files_opened: int = 0
    bytes_exchanged: int = 0
    records_skipped: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, **counts: int) -> None:
        """Adds to counters by name, as in `add(records_read=1, bytes_read=87_000)`."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)

    def as_dict(self) -> dict[str, int]:
        """Name → count."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


class Source(Protocol):
    """Samples 0 … len-1.

    `stored` is true where records come from storage or take time to decode, so that threads help.
    `contents` describes what the source is made of, a line for each part (files with their sizes,
    or a digest of all bytes). Two sources are the same data if these are equal, and the lines show
    where they differ. `read` and `decode` add to `counters`.
    """

    info: Any  # a DatasetInfo of its kind
    stored: bool
    contents: list[str]
    counters: Counters

    def __len__(self) -> int: ...

    def read(self, sample_id: int) -> bytes:
        """The encoded record of a sample.

        Raises:
            CorruptRecord: with the reason, when a checksum or a length shows that it is corrupt.
        """
        ...

    def decode(self, record: bytes, allocate: Allocate = new_memory) -> tuple[Sample, int]:
        """The sample of a record, in memory from `allocate`, and its label.

        An image is uint8 [H, W, C]; other samples have the dtype of the dataset and at most four
        axes. What has no label gives 0.

        Raises:
            CorruptRecord: with the reason why it cannot be decoded.
        """
        ...

    def where(self, sample_id: int) -> str:
        """The file and the position in it, for messages."""
        ...
