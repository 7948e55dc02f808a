"""Name → the samples of a run."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ba_dist.data.catalog.dataset import (
        Dataset,
        digest,
        open_alone,
        open_dataset,
        open_source,
    )

__all__ = ["Dataset", "open_dataset", "open_alone", "open_source", "digest"]


def __getattr__(name: str) -> Any:
    # Only when it is used: the names of the datasets (names.py) are shown without numpy.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ba_dist.data.catalog import dataset

    return getattr(dataset, name)
