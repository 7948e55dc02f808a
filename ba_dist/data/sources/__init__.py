"""Where records lie: the samples of a dataset, read and decoded one at a time."""

from ba_dist.data.sources.arrays import ArraySource
from ba_dist.data.sources.packed_pairs import PackedPairs, PairsInfo
from ba_dist.data.sources.source import (
    Allocate,
    Counters,
    DatasetInfo,
    Image,
    ImageInfo,
    Labels,
    Sample,
    Source,
    new_memory,
    put,
)
from ba_dist.data.sources.threads import Workers, workers

__all__ = [
    "ArraySource",
    "Counters",
    "DatasetInfo",
    "ImageInfo",
    "Image",
    "Labels",
    "PackedPairs",
    "PairsInfo",
    "Sample",
    "Allocate",
    "Source",
    "Workers",
    "new_memory",
    "put",
    "workers",
]
