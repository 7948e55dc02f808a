"""Samples that lie in memory as arrays."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ba_dist.data.sources.source import Allocate, Counters, Image, ImageInfo, new_memory, put


@dataclass
class ArraySource:
    """Images held in memory; a record is the label as 8 bytes, then the pixels.

    Args:
        info: facts of the dataset.
        images: uint8 [N, H, W, C].
        labels: int64 [N].
        digest: identifies the content.
    """

    info: ImageInfo
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

    def decode(self, record: bytes, allocate: Allocate = new_memory) -> tuple[Image, int]:
        self.counters.add(records_decoded=1)
        label = int(np.frombuffer(record, np.int64, 1)[0])
        pixels = np.frombuffer(record, np.uint8, offset=8)
        return put(pixels, self.info.image_shape, allocate), label

    def where(self, sample_id: int) -> str:
        return f"{self.info.name}, sample {sample_id} in memory"
