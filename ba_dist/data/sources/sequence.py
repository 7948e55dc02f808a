"""Samples that a person's own object gives one at a time: `len(samples)`, `samples[i]`."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ba_dist.data.sources.source import Allocate, Counters, Image, ImageInfo, new_memory, put
from ba_dist.errors import DataError

_HEADER = 4 * 8  # label, height, width, channels


def read_pair(samples: Any, sample_id: int, classes: int) -> tuple[Image, int]:
    """Sample `sample_id` of a person's own object, checked.

    Args:
        samples: gives (image, label) by index.
        sample_id: the index.
        classes: labels are in 0 … classes-1.

    Returns:
        Image uint8 [H, W, C] and label.

    Raises:
        DataError: naming the sample, when it is something else.
    """
    where = f"images[{sample_id}]"
    try:
        image, label = samples[sample_id]
    except (TypeError, ValueError):
        raise DataError(f"{where} must give a pair: image uint8 [H, W, C], label") from None
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise DataError(
            f"the image of {where} is {pixels.dtype} {list(pixels.shape)}; expected uint8 [H, W, C]"
        )
    number = np.asarray(label)
    if number.ndim or number.dtype.kind not in "iu" or not 0 <= number < classes:
        raise DataError(
            f"the label of {where} is {label!r}; expected an integer in 0 … {classes - 1}"
        )
    return pixels, int(number)


@dataclass
class SequenceSource:
    """Images of a person's own object; a record is label and shape as 8 bytes each, then pixels.

    Args:
        info: facts of the dataset.
        samples: has a length, and gives (image uint8 [H, W, C], label) by index.
    """

    info: ImageInfo
    samples: Any
    counters: Counters = field(default_factory=Counters)

    stored = False

    def __post_init__(self) -> None:
        self.contents = [f"{len(self.samples)} samples of {type(self.samples).__name__}"]

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, sample_id: int) -> bytes:
        self.counters.add(records_read=1)
        image, label = read_pair(self.samples, sample_id, self.info.classes)
        return np.array([label, *image.shape], np.int64).tobytes() + image.tobytes()

    def decode(self, record: bytes, allocate: Allocate = new_memory) -> tuple[Image, int]:
        self.counters.add(records_decoded=1)
        label, *shape = np.frombuffer(record[:_HEADER], np.int64).tolist()
        return put(np.frombuffer(record, np.uint8, offset=_HEADER), tuple(shape), allocate), label

    def where(self, sample_id: int) -> str:
        return f"images[{sample_id}]"
