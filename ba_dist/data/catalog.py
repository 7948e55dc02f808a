"""Name → the training and validation samples of a run, held once per node."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ba_dist.comm import Comm
from ba_dist.config import Data
from ba_dist.data.prepare import INFOS, Prepared, prepare
from ba_dist.data.sources import ArraySource, DatasetInfo, Source, SyntheticSource
from ba_dist.errors import ConfigError, DataError

NAMES = (*INFOS, "synthetic")
_SYNTHETIC_SAMPLES = {"train": 50_000, "test": 1_000}


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
    """
    if config.dataset == "synthetic":
        return _synthetic(config)
    # Rank 0 prepares for all that share its cache; the others find it made, or make their own.
    if comm.rank == 0:
        prepared = comm.together(lambda: prepare(config.dataset, config.data_dir))
    else:
        comm.together(lambda: None)
    node_prepares = comm.rank != 0 and comm.node.rank == 0
    mine = comm.together(
        lambda: prepare(config.dataset, config.data_dir) if node_prepares else None
    )
    prepared = comm.node.share_object(prepared if comm.rank == 0 else mine)
    _compare(prepared.digest, comm)
    train = _shared(prepared, "train", config.train_samples, comm)
    validation = _shared(prepared, "test", config.val_samples, comm)
    return Dataset(train, validation, prepared.info, prepared.origin)


def open_arrays(config: Data, split: str) -> ArraySource:
    """The samples of one split in this process's own memory, without other ranks.

    Args:
        config: names the dataset.
        split: train or test.
    """
    prepared = prepare(config.dataset, config.data_dir)
    images, labels = (
        np.load(prepared.folder / f"{split}_{kind}.npy", allow_pickle=False)
        for kind in ("images", "labels")
    )
    return ArraySource(prepared.info, images, labels, f"{prepared.digest}-{split}-{len(labels)}")


def _synthetic(config: Data) -> Dataset:
    size, channels = config.image_size, config.image_channels
    info = DatasetInfo(
        "synthetic", (size, size, channels), 10, (0.5,) * channels, (0.29,) * channels
    )
    train, validation = (
        SyntheticSource(info, wanted or _SYNTHETIC_SAMPLES[split], seed)
        for seed, (split, wanted) in enumerate(
            [("train", config.train_samples), ("test", config.val_samples)]
        )
    )
    return Dataset(train, validation, info, "made as it is read")


def _compare(digest: str, comm: Comm) -> None:
    """Raises DataError on all ranks when any has other data than rank 0."""
    everyone = comm.world.gather_objects((digest, comm.host))
    for rank, (other, host) in enumerate(everyone):
        if other != everyone[0][0]:
            raise DataError(
                f"rank {rank} on {host} has data with digest {other[:12]}, rank 0 has"
                f" {everyone[0][0][:12]}; prepare the same data on all nodes"
            )


def _shared(prepared: Prepared, split: str, wanted: int | None, comm: Comm) -> ArraySource:
    """The first `wanted` samples in memory that the ranks of a node share; one of them reads."""
    sizes, available = [0, 0], 0
    files = [prepared.folder / f"{split}_{kind}.npy" for kind in ("images", "labels")]
    if comm.node.rank == 0:
        stored = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
        count = wanted or len(stored[1])
        sizes = [stored[0][:count].nbytes, stored[1][:count].nbytes]
        available = len(stored[1])
    available = comm.node.share_object(available)
    if wanted and wanted > available:
        flag = "--train-samples" if split == "train" else "--val-samples"
        raise ConfigError(
            f"{flag} {wanted} is more than {prepared.info.name} has; use at most {available}"
        )
    sizes = comm.node.share_object(sizes)
    memory = [comm.node.shared_bytes(size) for size in sizes]
    labels: npt.NDArray[np.int64] = memory[1].view(np.int64)
    images = memory[0].reshape(len(labels), *prepared.info.image_shape)
    source = ArraySource(prepared.info, images, labels, f"{prepared.digest}-{split}-{len(labels)}")
    if comm.node.rank == 0:
        images[:], labels[:] = stored[0][: len(labels)], stored[1][: len(labels)]
        source.counters = dataclasses.replace(
            source.counters, bytes_read=sum(sizes), files_opened=len(files)
        )
    comm.node.barrier()
    return source
