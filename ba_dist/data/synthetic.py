"""Samples that cost no storage, for benchmarks and for trying things out."""

from dataclasses import dataclass, field

import numpy as np

from ba_dist.data.sources import Counters, DatasetInfo, Image, Place, new_memory, put
from ba_dist.sampling import combine


@dataclass
class SyntheticSource:
    """Noise that is a function of the sample id. A record is the id.

    Args:
        info: its image shape and classes.
        count: N.
        seed: names the noise.
    """

    info: DatasetInfo
    count: int
    seed: int = 0
    counters: Counters = field(default_factory=Counters)
    stored = False

    def __post_init__(self) -> None:
        self.contents = [f"synthetic-{self.count}-{self.info.image_shape}-{self.seed}"]

    def __len__(self) -> int:
        return self.count

    def read(self, sample_id: int) -> bytes:
        self.counters.add(records_read=1)
        return np.int64(sample_id).tobytes()

    def decode(self, record: bytes, place: Place = new_memory) -> tuple[Image, int]:
        self.counters.add(records_decoded=1)
        sample_id = int(np.frombuffer(record, np.int64)[0])
        size = int(np.prod(self.info.image_shape))
        noise = combine(self.seed, sample_id, np.arange(-(-size // 8)))
        image = put(noise.view(np.uint8)[:size], self.info.image_shape, place)
        return image, sample_id % self.info.classes

    def where(self, sample_id: int) -> str:
        return f"synthetic sample {sample_id}"
