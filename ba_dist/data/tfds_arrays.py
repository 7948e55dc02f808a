"""Datasets of tensorflow-datasets: prepared as ArrayRecord, read by index."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ba_dist.errors import DataError
from ba_dist.runtime import quiet


def open_builder(name: str, folder: Path) -> Any:
    """The builder of a dataset, prepared as ArrayRecord under `folder`, downloaded if need be.

    Raises:
        DataError: when tensorflow-datasets cannot be loaded or knows no such dataset.
    """
    quiet()
    try:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.utils import gcs_utils
    except ImportError as error:
        raise DataError(
            f"tensorflow-datasets cannot be loaded ({error}); run `make setup`"
        ) from None
    # Its own mirror is asked with long retries where there is no network.
    gcs_utils._is_gcs_disabled = True
    tfds.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    if not builder.is_prepared():
        _check_network(builder)
        builder.download_and_prepare()
    return builder


def _check_network(builder: Any) -> None:
    """Raises DataError when no host of the dataset has an address: TFDS would try for minutes."""
    hosts = sorted({urlsplit(url).hostname or "" for url in builder.url_infos})
    for host in hosts:
        try:
            socket.getaddrinfo(host, None)
            return
        except OSError:
            continue
    if hosts:
        raise DataError(f"no network: {hosts[0]} has no address here")


def read_splits(name: str, folder: Path, splits: Sequence[str]) -> dict[str, Any]:
    """Every image and label of the splits as arrays, `{split}_images` and `{split}_labels`."""
    builder = open_builder(name, folder)
    arrays: dict[str, Any] = {}
    for split in splits:
        source = builder.as_data_source(split)
        image_shape = builder.info.features["image"].shape
        images = np.empty((len(source), *image_shape), np.uint8)
        labels = np.empty(len(source), np.int64)
        for i, sample in enumerate(source):
            images[i], labels[i] = sample["image"], sample["label"]
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
    return arrays
