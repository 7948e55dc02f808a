"""Datasets of tensorflow-datasets: prepared as ArrayRecord, read by index."""

import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ba_dist.errors import CorruptRecord, DataError
from ba_dist.runtime import quiet


def open_builder(
    name: str, folder: Path, unknown: str = "", check: Callable[[Any], Any] | None = None
) -> Any:
    """The builder of a dataset that is prepared under `folder`, or is now downloaded to it.

    Args:
        name: of the dataset in TensorFlow Datasets.
        folder: the data directory of TensorFlow Datasets.
        unknown: message for when there is no such dataset.
        check: looks at a builder before anything is downloaded; by default `classification`.

    Raises:
        DataError: when tensorflow-datasets cannot be loaded or knows no such dataset, or when it
            cannot be prepared.
    """
    quiet()
    try:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.utils import gcs_utils
    except ImportError as error:
        raise DataError(
            f"tensorflow-datasets cannot be loaded ({error}); run `make setup` in a clone,"
            " else see docs/install.md"
        ) from None
    # Without a network, its mirror would be asked again and again for a long time.
    gcs_utils._is_gcs_disabled = True
    # Each builder would leave a temporary folder for what the mirror sends.
    tfds.core.DatasetInfo.initialize_from_bucket = lambda info: None
    tfds.disable_progress_bar()
    # It warns of every folder that it makes.
    logging.getLogger("absl").setLevel(logging.ERROR)
    if found := _newest(name, folder):
        return tfds.builder_from_directory(found)
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        raise DataError(unknown or f"TensorFlow Datasets has no {name}") from None
    except ValueError:  # it is there in another format, such as TFRecord, the default of TFDS
        builder = tfds.builder(name, data_dir=folder)
    if not builder.is_prepared():
        (check or classification)(builder)  # before the download
        _check_network(builder)
        folder.mkdir(parents=True, exist_ok=True)
        builder.download_and_prepare()
    return builder


def _newest(name: str, folder: Path) -> Path | None:
    """The newest version that is prepared there, which may not be the newest of TFDS."""

    def version(path: Path) -> list[int]:
        return [int(part) for part in path.name.split(".") if part.isdigit()]

    facts = ("dataset_info.json", "features.json")
    versions = (path.parent for path in (folder / name).glob(f"*/{facts[0]}"))
    return max((path for path in versions if (path / facts[1]).exists()), key=version, default=None)


def classification(builder: Any) -> tuple[str, str]:
    """The names of the features for image and label.

    Raises:
        DataError: when there is not one of each.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    names = builder.info.supervised_keys or ("image", "label")
    if set(names) <= set(features) and len(names) == 2:
        image, label = (features[name] for name in names)
        if isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel):
            return names[0], names[1]
    raise DataError(
        f"{builder.name} is no classification of images: it has {', '.join(features)};"
        " one Image and one ClassLabel are needed"
    )


def _check_network(builder: Any) -> None:
    """Raises DataError when no host of the dataset has an address; TFDS would try for minutes."""
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
    """Every image and label of the splits as arrays, `{split}_images` and `{split}_labels`.

    Raises:
        CorruptRecord: when the dataset is there, but cannot be read.
        DataError: when it is not available.
    """
    builder = open_builder(name, folder)
    arrays: dict[str, Any] = {}
    for split in splits:
        count = builder.info.splits[split].num_examples
        images = np.empty((count, *builder.info.features["image"].shape), np.uint8)
        labels = np.empty(count, np.int64)
        try:
            for i, sample in enumerate(in_order(builder, split)):
                images[i], labels[i] = sample["image"], sample["label"]
        except Exception as error:  # each file format has its own kinds of errors
            raise CorruptRecord(
                f"{builder.data_dir} is corrupt ({type(error).__name__}: {error}); delete it to"
                " prepare it anew"
            ) from None
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
    return arrays


def in_order(builder: Any, split: str) -> Iterable[Any]:
    """The samples in the order of storage, which is the same in every file format."""
    import tensorflow_datasets as tfds

    try:
        source: Iterable[Any] = builder.as_data_source(split)
    except NotImplementedError:  # TFRecord can only be read from front to back
        one_file_at_a_time = tfds.ReadConfig(interleave_cycle_length=1)
        dataset = builder.as_dataset(split=split, read_config=one_file_at_a_time)
        source = tfds.as_numpy(dataset)
    return source
