"""What a script may give as images: arrays, an object of its own, or a dataset by name.

Each becomes a source; what cannot work is refused before anything starts.
"""

import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.api.words import same_on_all_ranks
from ba_dist.comm import Comm
from ba_dist.config import Data
from ba_dist.data.catalog import open_dataset
from ba_dist.data.sources import ArraySource, Image, ImageInfo, Source
from ba_dist.data.sources.sequence import SequenceSource, read_pair
from ba_dist.errors import ConfigError
from ba_dist.rules.order import subset_ids

_MEASURED_SAMPLES, _COMPARED_SAMPLES = 1024, 64


@dataclass(frozen=True)
class Samples:
    """What training draws from, and what evaluation takes where nothing else is given.

    Args:
        train: the source to train on.
        validation: that of a dataset by name; None for other images.
    """

    train: Source
    validation: Source | None = None

    @property
    def info(self) -> ImageInfo:
        """Facts of the images."""
        info: ImageInfo = self.train.info
        return info


def open_samples(
    images: Any, labels: Any, *, classes: int | None, varying: bool, comm: Comm
) -> Samples:
    """The source of what a script gives; collective over the world.

    Args:
        images: uint8 [N, H, W, C], an object with length and `[i]`, or `Data`.
        labels: integers [N] of the first; None for the others.
        classes: number of classes, where the script says it.
        varying: whether images may differ in size.
        comm: the world.

    Raises:
        ConfigError: on all ranks, with the name of the parameter.
        DataError: on all ranks, when a dataset is not available, or its samples are wrong.
    """
    same_on_all_ranks({"images": type(images), "labels": type(labels), "classes": classes}, comm)
    if isinstance(images, Data):
        if labels is not None or classes is not None:
            raise ConfigError("labels and classes are those of the dataset; leave them out")
        dataset = open_dataset(images, comm)
        if not isinstance(dataset.info, ImageInfo):
            raise ConfigError(f"{images.dataset} holds no images with classes")
        return Samples(dataset.train, dataset.validation)
    if labels is None and is_sequence(images):
        return Samples(_of_sequence(images, classes, varying, comm))
    checked, numbers = comm.together(lambda: check_arrays(images, labels, classes))
    _compare_arrays(checked, numbers, comm)
    stats = comm.world.share_object(_statistics_of_array(checked) if comm.rank == 0 else None)
    shape: Any = checked.shape[1:]
    info = ImageInfo("own", shape, classes or int(numbers.max()) + 1, *stats)
    return Samples(ArraySource(info, checked, numbers, "own"))


def open_evaluation(images: Any, labels: Any, info: ImageInfo, *, varying: bool) -> Source:
    """The source of other images, to evaluate on.

    Args:
        images: as for training, but no `Data`.
        labels: integers [N] of arrays.
        info: of the training images.
        varying: whether images may differ from those in size.

    Raises:
        ConfigError: with the name of the parameter.
    """
    if isinstance(images, Data):
        raise ConfigError("images are Data: evaluation() without images evaluates on its own")
    if labels is None and is_sequence(images):
        if not len(images):
            raise ConfigError("images are empty")
        return SequenceSource(info, images)
    checked, numbers = check_arrays(images, labels, info.classes)
    shape: Any = checked.shape[1:]
    if not varying and shape != info.image_shape:
        height, width, channels = info.image_shape
        raise ConfigError(
            f"images are {list(checked.shape)}; expected [N, {height}, {width}, {channels}] as in"
            " training"
        )
    return ArraySource(replace(info, image_shape=shape), checked, numbers, "own")


def is_sequence(images: Any) -> bool:
    """Whether it is an object of one's own that gives samples by index, and no array."""
    return (
        hasattr(images, "__len__")
        and hasattr(images, "__getitem__")
        and not hasattr(images, "__array__")
    )


def check_images(images: Any) -> npt.NDArray[np.uint8]:
    """Images as an array uint8 [N, H, W, C].

    Raises:
        ConfigError: saying what they are instead.
    """
    try:
        array = np.asarray(images)
    except ValueError:  # images of several sizes
        array = np.array(None)
    if array.dtype != np.uint8:
        advice = ""
        if array.dtype.kind == "f":
            advice = "; of pixels in 0 … 1 make them by `(255 * images).round().astype('uint8')`"
        raise ConfigError(
            f"images are {array.dtype}; expected uint8 [N, H, W, C], pixels in 0 … 255{advice}"
        )
    if array.ndim != 4:
        advice = "; `images[..., None]` gives grey images their channel" if array.ndim == 3 else ""
        raise ConfigError(f"images are {list(array.shape)}; expected [N, H, W, C]{advice}")
    if not array.size:
        raise ConfigError(f"images are empty: {list(array.shape)}")
    return array


def check_labels(labels: Any, count: int, classes: int | None) -> npt.NDArray[np.int64]:
    """Labels as int64 [N].

    Args:
        labels: of the script.
        count: of the images.
        classes: labels are below it; None where the labels say how many there are.

    Raises:
        ConfigError: saying what they are instead.
    """
    if labels is None:
        raise ConfigError("labels are missing; expected an integer for each image")
    array = np.asarray(labels)
    if array.ndim == 2 and len(array) == count:
        way = "labels.argmax(1)" if array.shape[1] > 1 else "labels[:, 0]"
        raise ConfigError(
            f"labels are {list(array.shape)}; expected one integer for each image: `{way}`"
        )
    if array.shape != (count,):
        raise ConfigError(f"labels are {list(array.shape)}, and there are {count} images")
    if array.dtype.kind not in "iuf":
        raise ConfigError(f"labels are {array.dtype}; expected integers")
    if array.dtype.kind == "f" and not (array == np.floor(array)).all():
        wrong = array[array != np.floor(array)][0]
        raise ConfigError(f"labels hold {wrong}; expected integers")
    if array.min() < 0 or (classes is not None and array.max() >= classes):
        wrong = array.min() if array.min() < 0 else array.max()
        allowed = f"0 … {classes - 1}" if classes is not None else "0, 1, 2, …"
        raise ConfigError(f"labels hold {wrong}; expected {allowed}")
    return array.astype(np.int64)


def check_arrays(
    images: Any, labels: Any, classes: int | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images uint8 [N, H, W, C] and labels int64 [N], for `check_images` and `check_labels`."""
    checked = check_images(images)
    return checked, check_labels(labels, len(checked), classes)


def _compare_arrays(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], comm: Comm
) -> None:
    """Raises ConfigError on all ranks where one has other images, as a shard of its own."""
    count = min(len(images), _COMPARED_SAMPLES)
    some = images[subset_ids(np.arange(count), count, len(images))]
    facts = (images.shape, zlib.crc32(labels.tobytes()), zlib.crc32(some.tobytes()))
    first, *rest = comm.world.gather_objects(facts)
    for rank, other in enumerate(rest, 1):
        if other != first:
            what = f"{list(other[0])}" if other[0] != first[0] else "other images or labels"
            raise ConfigError(
                f"images {list(first[0])} on rank 0 are {what} on rank {rank}; give all images to"
                " every rank, which takes its part by itself"
            )


def _of_sequence(samples: Any, classes: int | None, varying: bool, comm: Comm) -> Source:
    def look() -> tuple[Any, ...] | None:
        if classes is None:
            raise ConfigError("classes is needed for images that are read one at a time")
        if not len(samples):
            raise ConfigError("images are empty")
        return _statistics_of_sequence(samples, classes) if comm.rank == 0 else None

    facts = comm.together(look)
    same_on_all_ranks({"len(images)": len(samples)}, comm)
    shape, mean, std = comm.world.share_object(facts)
    assert classes is not None
    size = (0, 0) if varying else shape[:2]
    return SequenceSource(ImageInfo("own", (*size, shape[2]), classes, mean, std), samples)


# --- mean and standard deviation ------------------------------------------------------------------


def _statistics_of_array(images: npt.NDArray[np.uint8]) -> tuple[Any, Any]:
    """Mean and standard deviation of each channel, of at most about 10^7 pixels in 0 … 1."""
    unit = images.reshape(-1, images.shape[-1])[:: max(1, images.size // 10**7)] / 255
    return tuple(unit.mean(0).tolist()), _deviation(unit.std(0))


def _statistics_of_sequence(samples: Any, classes: int) -> tuple[Any, Any, Any]:
    """Shape of the first image; mean and standard deviation of up to 1024, evenly spread."""
    count = min(len(samples), _MEASURED_SAMPLES)
    ids = subset_ids(np.arange(count), count, len(samples)).tolist()
    shape = read_pair(samples, 0, classes)[0].shape
    sums = np.zeros((2, shape[2]), np.int64)
    pixels = 0
    for sample_id in ids:
        image: Image = read_pair(samples, sample_id, classes)[0]
        if image.shape[2] != shape[2]:
            raise ConfigError(f"images[{sample_id}] has {image.shape[2]} channels, others {shape}")
        values = image.reshape(-1, shape[2]).astype(np.int64)
        sums += [values.sum(0), (values**2).sum(0)]
        pixels += len(values)
    mean, square = sums / pixels / np.array([[255], [255**2]])
    return shape, tuple(mean.tolist()), _deviation(np.sqrt(np.maximum(square - mean**2, 0)))


def _deviation(std: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """1 for a channel in which all pixels are the same: it is divided by."""
    return tuple(np.where(std > 0, std, 1.0).tolist())
