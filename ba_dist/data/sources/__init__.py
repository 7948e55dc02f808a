"""Where records lie: the samples of a dataset, read and decoded one at a time."""

from ba_dist.data.sources.source import (
    ArraySource,
    Counters,
    DatasetInfo,
    Image,
    Images,
    Labels,
    Place,
    S,
    Source,
    T,
    Workers,
    new_memory,
    put,
    workers,
)

__all__ = [
    "Image",
    "Images",
    "Labels",
    "Place",
    "new_memory",
    "DatasetInfo",
    "Counters",
    "Source",
    "T",
    "S",
    "Workers",
    "workers",
    "ArraySource",
    "put",
]
