"""Name → the training and validation samples of a run: rank 0 finds them and tells the others."""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ba_dist.comm import Channel, Comm
from ba_dist.config import Data
from ba_dist.data.catalog.find import find
from ba_dist.data.catalog.found import Found, Split, open_split
from ba_dist.data.catalog.image_datasets import home
from ba_dist.data.catalog.splits import FLAGS, SPLITS, wanted_samples
from ba_dist.data.sources import DatasetInfo, Source
from ba_dist.errors import ConfigError, DataError


@dataclass(frozen=True)
class Dataset:
    """The two splits of a dataset.

    Args:
        train: samples to train on.
        validation: samples to evaluate on.
        info: facts of both.
        origin: where they came from, for messages.
    """

    train: Source
    validation: Source
    info: DatasetInfo
    origin: str


def open_dataset(config: Data, comm: Comm) -> Dataset:
    """Opens the samples on every rank; collective over the world.

    Raises:
        DataError: on all ranks, when it is not available or a node has other files than rank 0.
        ConfigError: on all ranks, when there are fewer samples than are asked for.
    """
    found = comm.together(lambda: _limited(find(config), config) if comm.rank == 0 else None)
    shared = _share(found, comm)
    root = comm.node.share_object(home(config.data_dir) if comm.node.rank == 0 else None)
    splits = {name: dataclasses.replace(split, root=root) for name, split in shared.splits.items()}
    _check_nodes(splits, comm)
    sources = comm.together(
        lambda: {name: open_split(shared.info, split) for name, split in splits.items()}
    )
    if found is not None:
        _count_reading(found, sources)
    return Dataset(sources["train"], sources["validation"], shared.info, shared.origin)


def open_source(config: Data, split: str) -> Source:
    """The samples of one split for this process alone, without other ranks.

    Args:
        config: names the dataset.
        split: train or validation.

    Raises:
        DataError: when it is not available.
        ConfigError: when there are fewer samples than are asked for.
    """
    found = _limited(find(config), config)
    wanted = found.splits[split]
    arrays = {name: np.array(array) for name, array in wanted.arrays.items()}
    return open_split(found.info, dataclasses.replace(wanted, arrays=arrays))


def open_alone(config: Data) -> Dataset:
    """Both splits for this process alone, without other ranks.

    Raises:
        DataError: when it is not available.
        ConfigError: when there are fewer samples than are asked for.
    """
    found = _limited(find(config), config)
    train, validation = (open_split(found.info, found.splits[name]) for name in SPLITS)
    return Dataset(train, validation, found.info, found.origin)


def digest(source: Source) -> str:
    """SHA-256 of the number of samples and of `contents`, 64 hexadecimal digits."""
    lines = [f"{len(source)} samples", *source.contents]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


_AND_BATCH = {"train": ", and no more than that for --batch-size", "validation": ""}


def _limited(found: Found, config: Data) -> Found:
    """What was found, cut down to as many samples as the configuration wants."""
    splits = {}
    for name, wanted in wanted_samples(config).items():
        split = found.splits[name]
        if wanted and wanted > split.count:
            raise ConfigError(
                f"{FLAGS[name]} {wanted} is more than {found.info.name} has; use at most"
                f" {FLAGS[name]} {split.count}{_AND_BATCH[name]}"
            )
        splits[name] = split.subset(wanted) if wanted else split
    return dataclasses.replace(found, splits=splits)


def _share(found: Found | None, comm: Comm) -> Found:
    """What rank 0 has found, on all ranks; the arrays are in memory that a node's ranks share."""
    outline = None
    if found is not None:
        splits = {n: dataclasses.replace(split, arrays={}) for n, split in found.splits.items()}
        shapes = {
            name: {key: (a.dtype.str, a.shape) for key, a in split.arrays.items()}
            for name, split in found.splits.items()
        }
        outline = dataclasses.replace(found, splits=splits), shapes
    shared: Found
    shared, shapes = comm.world.share_object(outline)
    sizes = [
        int(np.prod(shape)) * np.dtype(dtype).itemsize
        for arrays in shapes.values()
        for dtype, shape in arrays.values()
    ]
    # All ranks must agree: if only one node raised, the other nodes would wait for it.
    comm.together(lambda: _check_room(sum(sizes), comm.node))
    leaders = comm.leaders
    for name, split in shared.splits.items():
        for key, (dtype, shape) in shapes[name].items():
            memory = comm.node.shared_bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
            split.arrays[key] = memory.view(dtype).reshape(shape)
            if found is not None:
                split.arrays[key][:] = found.splits[name].arrays[key]
            if leaders is not None:
                leaders.broadcast(memory)
    comm.node.barrier()
    return shared


def _check_room(size: int, node: Channel) -> None:
    """Raises DataError on all ranks of a node without room for so many bytes of shared memory."""
    if node.size > 1 and (complaint := node.lacks_room(size)):
        raise DataError(complaint)


def _count_reading(found: Found, sources: dict[str, Source]) -> None:
    """Counts the arrays on the rank that found them: it has read them whole, before any sample."""
    for name, split in found.splits.items():
        if "images" in split.arrays:
            size = sum(array.nbytes for array in split.arrays.values())
            sources[name].counters.add(bytes_read=size, files_opened=len(split.arrays))


def _check_nodes(splits: dict[str, Split], comm: Comm) -> None:
    """Raises DataError on all ranks when a node differs from rank 0 in one of the sample files."""
    leads = comm.node.rank == 0
    mine = [line for split in splits.values() for line in _look(split)] if leads else []
    expected = comm.world.share_object(mine)
    pairs = zip(mine, expected, strict=True) if leads else ()
    differences = comm.world.gather_objects(
        next((pair for pair in pairs if len(set(pair)) > 1), None)
    )
    found = next(((rank, pair) for rank, pair in enumerate(differences) if pair), None)
    if found is None:
        return
    rank, (here, there) = found
    root = splits["train"].root
    host, where = comm.world.share_object(
        (comm.host, f"{root}" if root.is_dir() else f"{root}, which is not there"), root=rank
    )

    def differ() -> None:
        raise DataError(
            f"rank {rank} on {host} has other data than rank 0: the first difference is\n"
            f"  rank {rank}: {here}\n  rank 0: {there}\n"
            f"Bring the same data to all nodes; rank {rank} looks in {where}"
        )

    comm.together(differ)


def _look(split: Split) -> Iterator[str]:
    """The size of each sample file of a split, a line each."""
    for name, path in zip(split.sample, split.paths(split.sample), strict=True):
        try:
            yield f"{name}: {path.stat().st_size} bytes"
        except (FileNotFoundError, NotADirectoryError):
            yield f"{name}: missing"
        except OSError as error:
            yield f"{name}: {error.strerror}"
