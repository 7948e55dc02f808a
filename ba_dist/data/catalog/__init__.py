"""Name → the samples of a run."""

from ba_dist.data.catalog.dataset import Dataset, digest, open_dataset, open_source

__all__ = ["Dataset", "open_dataset", "open_source", "digest"]
