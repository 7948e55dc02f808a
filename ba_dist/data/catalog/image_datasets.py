"""Datasets of images of any size: where they are, and in which form.

`imagenet` and `pictures` take whatever is in the data directory: a folder per class, TFRecord
shards, or (imagenet) what TensorFlow Datasets has prepared. Any other name is one of TensorFlow
Datasets'.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ba_dist.data.catalog.prepare import INFOS, first_line
from ba_dist.data.sources import ImageInfo
from ba_dist.data.sources.examples import SCRIPTS, TFDS, Features
from ba_dist.data.sources.image_folder import list_classes
from ba_dist.data.sources.shard_index import UNKNOWN, ShardIndex, find_shards
from ba_dist.errors import DataError
from ba_dist.storage.cache import DATA_VARIABLE, cache_dir, check_data_dir, data_dir

DETECTED = ("imagenet", "pictures")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels
_VALIDATION = ("val", "validation")
_SPLIT_WORDS = {"train": ("train",), "validation": _VALIDATION}  # in the names of shards
_TFDS_IMAGENET = "imagenet2012"


@dataclass(frozen=True)
class Located:
    """Where a dataset of images is.

    Args:
        name: of the dataset.
        form: of storage.
        root: the folder that has all of it.
        files: split → its shards, or its one folder.
        origin: where it is and in which form, for messages.
        index_command: the command that makes the index of shards.
        classes: number of classes, 0 where only the files say.
        size: (H, W) of every image; zeros where the size varies.
        features: names of the features in Examples, where they are known.
        class_names: in order of the labels, where they are known.
    """

    name: str
    form: Literal["folder", "tfrecord", "array_record"]
    root: Path
    files: dict[str, list[Path]]
    origin: str
    index_command: str
    classes: int = 0
    size: tuple[int, int] = (0, 0)
    features: Features | None = None
    class_names: tuple[str, ...] = ()

    def info_of(self, classes: int) -> ImageInfo:
        """The facts of the dataset, once the number of classes is known."""
        return ImageInfo(self.name, (*self.size, 3), classes, MEAN, STD, self.class_names)


def locate(name: str, given_dir: str | None) -> Located:
    """Looks for a dataset of images.

    Args:
        name: imagenet, pictures, or a name of TensorFlow Datasets'.
        given_dir: the value of --data-dir.

    Raises:
        DataError: with what was looked for, and how to get it.
    """
    path = data_dir(given_dir)
    if path is not None:
        check_data_dir(path)
    command = f"ba-dist data index {name}" + (f" --data-dir {path}" if path else "")
    if name not in DETECTED:
        return _tfds(name, home(given_dir), command)
    for found in (_folders, _shards):
        if path and (located := found(name, path, command)):
            return located
    if name == "imagenet" and (home(given_dir) / _TFDS_IMAGENET).is_dir():
        return replace(_tfds(_TFDS_IMAGENET, home(given_dir), command), name=name)
    raise DataError(_not_found(name, path))


def home(given_dir: str | None) -> Path:
    """The folder of images on this node: the one that was given, else TFDS's in the cache."""
    return data_dir(given_dir) or cache_dir() / "tfds"


def _folders(name: str, path: Path, command: str) -> Located | None:
    train = path / "train"
    if not train.is_dir() or not list_classes(train):
        return None
    for folder in (path / split for split in _VALIDATION):
        if folder.is_dir():
            files = {"train": [train], "validation": [folder]}
            return Located(name, "folder", path, files, f"the folders in {path}", command)
    raise DataError(
        f"{train} holds a folder per class, but there is no {path / _VALIDATION[0]} beside it;"
        " images to evaluate on are needed, in folders of the same names"
    )


def _shards(name: str, path: Path, command: str) -> Located | None:
    found: dict[str, list[Path]] = {}
    for split, words in _SPLIT_WORDS.items():
        folders = (path, *(path / word for word in words))
        candidates = (find_shards(folder, word) for folder in folders for word in words)
        found[split] = next((shards for shards in candidates if shards), [])
    if not any(found.values()):
        return None
    for split, words in _SPLIT_WORDS.items():
        if not found[split]:
            raise DataError(
                f"{path} holds TFRecord shards, but no {words[-1]}-00000-of-…; bring those too"
            )
    return Located(name, "tfrecord", path, found, f"the TFRecord shards in {path}", command)


def _not_found(name: str, path: Path | None) -> str:
    where = path or "DIR"
    forms = [
        f"{where}/train/CLASS/NAME.JPEG and {where}/val/CLASS/NAME.JPEG: a folder per class",
        f"{where}/train-00000-of-01024 … and {where}/validation-00000-of-00128 …: TFRecord shards"
        f" (also in {where}/train and {where}/validation)",
    ]
    if name == "imagenet":
        forms.append(f"{path or cache_dir() / 'tfds'}/{_TFDS_IMAGENET}: TensorFlow Datasets")
    start = f"{path} holds none of the forms of {name}:"
    if path is None:
        start = f"{name} needs --data-dir (or ${DATA_VARIABLE}) to name a folder with one of these:"
    advice = (
        "\nImageNet is given out on request at image-net.org; unpack its archives into the first"
        " form, or into one of the others."
    )
    return f"{start}\n  - " + "\n  - ".join(forms) + (advice if name == "imagenet" else "")


# --- labels ---------------------------------------------------------------------------------------


def numbering(located: Located, train: ShardIndex, validation: ShardIndex) -> tuple[Features, str]:
    """Finds out which label is class 0, and how many classes there are, from the training labels.

    Returns:
        The features with both filled in, and a phrase about it for messages.

    Raises:
        DataError: when validation has other labels, or other features.
    """
    if train.features != validation.features:
        raise DataError(
            f"{located.origin}: training holds {train.features.image!r}, validation"
            f" {validation.features.image!r}; both must be written in the same way"
        )
    labels = train.labels()
    if not len(labels):
        raise DataError(f"{located.origin}: no record of training can be read")
    if not located.classes:
        _check_nothing_hidden(located, train)
    # ImageNet's scripts number from 1; in TensorFlow Datasets 0 is always a class.
    first = 1 if train.features == SCRIPTS and labels.min() == 1 else 0
    classes = located.classes or int(labels.max()) - first + 1
    known = validation.labels()
    for split, found in (("training", labels), ("validation", known)):
        if len(found) and not first <= found.min() <= found.max() < first + classes:
            raise DataError(
                f"{located.origin}: the labels of {split} are {found.min()} … {found.max()},"
                f" expected {first} … {first + classes - 1}"
            )
    text = "labels from 1, where 0 is the background" if first else "labels from 0"
    return replace(train.features, first_label=first, classes=classes), text


def _check_nothing_hidden(located: Located, train: ShardIndex) -> None:
    """Raises DataError when there are so many corrupt records that they may be a whole class.

    If that were the first class, all labels would be numbered wrongly. A class is assumed to have
    at least as many records as the smallest class that is known.
    """
    corrupt = np.flatnonzero(train.columns["label"] == UNKNOWN)
    counts = np.bincount(train.labels())
    if len(corrupt) >= counts[counts > 0].min():
        first = corrupt[0]
        shard = located.files["train"][train.columns["shard"][first]]
        raise DataError(
            f"{shard} at byte {train.columns['offset'][first]}: the data of this record and of"
            f" {len(corrupt) - 1} others is corrupt, which may hide a class; copy the shards again"
        )


def tfds_features(located: Located) -> Features:
    """The features of a dataset of TensorFlow Datasets."""
    return replace(located.features or TFDS, classes=located.classes)


# --- TensorFlow Datasets --------------------------------------------------------------------------


def _tfds(name: str, folder: Path, command: str) -> Located:
    from ba_dist.data.catalog import tfds_arrays

    builder = _prepared(name, folder)
    image, label = tfds_arrays.classification(builder)
    splits = builder.info.splits
    validation = next((split for split in ("validation", "test") if split in splits), None)
    if "train" not in splits or validation is None:
        raise DataError(
            f"{name} has the splits {', '.join(splits)}; train, and validation or test, are needed"
        )
    form: Any = builder.info.file_format.value
    if form not in ("tfrecord", "array_record"):
        raise DataError(f"{name} is stored as {form}; tfrecord or array_record is needed")
    files = {
        key: [Path(path) for path in splits[split].filepaths]
        for key, split in (("train", "train"), ("validation", validation))
    }
    shape = builder.info.features[image].shape
    return Located(
        name,
        form,
        folder,
        files,
        f"TensorFlow Datasets in {builder.data_dir}",
        command,
        builder.info.features[label].num_classes,
        (shape[0] or 0, shape[1] or 0),
        replace(TFDS, image=image, label=label),
        _class_names(builder.info.features[label]),
    )


def _class_names(label: Any) -> tuple[str, ...]:
    """What TensorFlow Datasets calls the classes; where it does not know, it counts them."""
    names = tuple(label.names)
    return () if names == tuple(map(str, range(len(names)))) else names


def _prepared(name: str, folder: Path) -> Any:
    """The builder of a dataset that is prepared under `folder`, or is downloaded to it now."""
    from ba_dist.data.catalog import tfds_arrays

    known = ", ".join((*INFOS, *DETECTED, "synthetic", "synthetic-colour", "synthetic-jpeg"))
    unknown = (
        f"--dataset {name!r} is unknown; choose from {known}, or a classification dataset of"
        " TensorFlow Datasets"
    )
    try:
        return tfds_arrays.open_builder(name, folder, unknown)
    except Exception as error:  # a download fails in many ways; all mean that there is no data
        if f"{error}" == unknown:
            raise
        raise DataError(
            f"{name} is not prepared in {folder}, and TensorFlow Datasets cannot bring it:"
            f" {first_line(error)}\nRun `ba-dist data prepare {name}` on a machine with a network"
            f" and the same folder, or name a folder that holds it by --data-dir or"
            f" ${DATA_VARIABLE}."
        ) from None
