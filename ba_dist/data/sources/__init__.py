"""Where records lie: the samples of a dataset, read and decoded one at a time."""

from ba_dist.data.sources.arrays import ArraySource
from ba_dist.data.sources.source import (
    Counters,
    DatasetInfo,
    Image,
    Images,
    Labels,
    Place,
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
    "Place",
    "Source",
    "Workers",
    "new_memory",
    "put",
    "workers",
]
