"""Where records lie: the samples of a dataset, read and decoded one at a time."""

from ba_dist.data.sources.arrays import ArraySource
from ba_dist.data.sources.source import (
    Allocate,
    Counters,
    DatasetInfo,
    Image,
    Images,
    Labels,
    Source,
    new_memory,
    put,
)
from ba_dist.data.sources.threads import Workers, workers

__all__ = [
    "ArraySource",
    "Counters",
    "DatasetInfo",
    "Image",
    "Images",
    "Labels",
    "Allocate",
    "Source",
    "Workers",
    "new_memory",
    "put",
    "workers",
]
