"""Name → the training and validation samples of a run, found once per node."""

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np

from ba_dist.comm import Comm
from ba_dist.config import Data
from ba_dist.data.find import Found, Split, find, open_split
from ba_dist.data.sources import DatasetInfo, Source
from ba_dist.errors import ConfigError, DataError

_FLAGS = {"train": "--train-samples", "test": "--val-samples"}


@dataclass(frozen=True)
class Dataset:
    """The two sides of a dataset.

    Args:
        train: samples to train on.
        validation: samples to evaluate on.
        info: of both.
        origin: where they came from, for people.
    """

    train: Source
    validation: Source
    info: DatasetInfo
    origin: str


def open_dataset(config: Data, comm: Comm) -> Dataset:
    """Opens the samples on every rank; collective over the world.

    Raises:
        DataError: on all ranks, when it cannot be had or differs between ranks.
        ConfigError: on all ranks, when there are fewer samples than are asked for.
    """

    def look() -> Found:
        return _limited(find(config), config)

    # Rank 0 prepares and indexes for all that share its files; the others find that done, or do it
    # for their own node.
    first = comm.together(lambda: look() if comm.rank == 0 else None)
    leads = comm.node.rank == 0 and comm.rank != 0
    found = comm.together(lambda: look() if leads else first)
    shared = _on_node(found, comm)
    sources = comm.together(
        lambda: {name: open_split(shared.info, split) for name, split in shared.splits.items()}
    )
    _compare(sources, comm)
    if found is not None:
        _count_reading(found, sources)
    return Dataset(sources["train"], sources["test"], shared.info, shared.origin)


def open_source(config: Data, split: str) -> Source:
    """The samples of one split for this process alone, without other ranks.

    Args:
        config: names the dataset.
        split: train or test.

    Raises:
        DataError: when it cannot be had.
        ConfigError: when there are fewer samples than are asked for.
    """
    found = _limited(find(config), config)
    wanted = found.splits[split]
    arrays = {name: np.array(array) for name, array in wanted.arrays.items()}
    return open_split(found.info, dataclasses.replace(wanted, arrays=arrays))


def digest(source: Source) -> str:
    """SHA-256 of what a source is made of."""
    lines = [f"{len(source)} samples", *source.contents]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _limited(found: Found, config: Data) -> Found:
    """Only as many samples as the configuration wants."""
    splits = {}
    for name, wanted in (("train", config.train_samples), ("test", config.val_samples)):
        split = found.splits[name]
        if wanted and wanted > split.count:
            raise ConfigError(
                f"{_FLAGS[name]} {wanted} is more than {found.info.name} has; use at most"
                f" {split.count}"
            )
        splits[name] = split.subset(wanted) if wanted else split
    return dataclasses.replace(found, splits=splits)


def _on_node(found: Found | None, comm: Comm) -> Found:
    """What the node's first rank has found, its arrays in memory that all ranks of the node see."""
    outline = None
    if comm.node.rank == 0:
        assert found is not None  # or an exception has been raised
        splits = {name: _without_arrays(split) for name, split in found.splits.items()}
        shapes = {
            name: {key: (a.dtype.str, a.shape) for key, a in split.arrays.items()}
            for name, split in found.splits.items()
        }
        outline = dataclasses.replace(found, splits=splits), shapes
    shared, shapes = comm.node.share_object(outline)
    for name, split in shared.splits.items():
        for key, (dtype, shape) in shapes[name].items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            split.arrays[key] = comm.node.shared_bytes(size).view(dtype).reshape(shape)
            if found is not None and comm.node.rank == 0:
                split.arrays[key][:] = found.splits[name].arrays[key]
    comm.node.barrier()
    result: Found = shared
    return result


def _without_arrays(split: Split) -> Split:
    return dataclasses.replace(split, arrays={})


def _count_reading(found: Found, sources: dict[str, Source]) -> None:
    """Arrays are read whole by the one who found them, before any sample is asked for."""
    for name, split in found.splits.items():
        if "images" in split.arrays:
            size = sum(array.nbytes for array in split.arrays.values())
            sources[name].counters.add(bytes_read=size, files_opened=len(split.arrays))


def _compare(sources: dict[str, Source], comm: Comm) -> None:
    """Raises DataError on all ranks when any has other data than rank 0."""
    mine = [
        f"{name}: {line}"
        for name, source in sources.items()
        for line in (f"{len(source)} samples", *source.contents)
    ]
    digests = comm.world.gather_objects({name: digest(s) for name, s in sources.items()})
    if all(other == digests[0] for other in digests):
        return
    expected = comm.world.share_object(mine)
    found = comm.world.gather_objects(_first_difference(mine, expected))
    rank = next(rank for rank, lines in enumerate(found) if lines is not None)
    host = comm.world.share_object(comm.host, root=rank)

    def differ() -> None:
        here, there = found[rank]
        raise DataError(
            f"rank {rank} on {host} has other data than rank 0: the first difference is\n"
            f"  rank {rank}: {here}\n  rank 0: {there}\nBring the same data to all nodes"
        )

    comm.together(differ)


def _first_difference(lines: list[str], expected: list[str]) -> tuple[str, str] | None:
    """The first pair of lines that are not the same; None when all are."""
    length = max(len(lines), len(expected))
    padded = [part + ["nothing"] * (length - len(part)) for part in (lines, expected)]
    return next((pair for pair in zip(*padded, strict=True) if pair[0] != pair[1]), None)
