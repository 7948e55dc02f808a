"""The augmented copies of the first samples of a run, as people look at them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ba_dist.config import Config
from ba_dist.data.batch import InstanceMaker, make
from ba_dist.data.order import order_of
from ba_dist.data.sources import Image, ImageInfo, Source
from ba_dist.rules.confusion import name_of
from ba_dist.rules.keys import augmentation_keys

_SAMPLES, _COPIES = 4, 8


@dataclass(frozen=True)
class Copies:
    """A sample and what is made of it.

    Args:
        sample: its id.
        label: its class, by number or by name.
        original: uint8 [H, W, C].
        copies: float32 [H, W, C] in 0 … 1 each.
    """

    sample: int
    label: str
    original: Image
    copies: list[npt.NDArray[np.float32]]


def first_copies(config: Config, task: InstanceMaker, source: Source) -> list[Copies]:
    """The first copies of a few samples: the first of the first epoch, in the order of --shuffle.

    The pixels are those that the network is trained on, mixed with their partners where that is on.

    Args:
        config: of the run.
        task: makes the copies.
        source: the training samples.
    """
    batch, info = config.batch, source.info
    mixed = config.augment.mixup > 0 or config.augment.cutmix > 0
    together = min(
        batch.ghost_batch_size if mixed else _SAMPLES,
        batch.ghost_batch_size,
        batch.batch_size,
        len(source),
    )
    order = order_of(config, info)
    ids = order(len(source), config.run.seed, 0)(np.arange(together))
    images, labels = zip(*(source.decode(source.read(int(i))) for i in ids), strict=True)
    columns = [
        copies_of(task, info, images, augmentation_keys(config.run.seed, 0, ids, copy))
        for copy in range(min(batch.multiplicity, _COPIES))
    ]
    return [
        Copies(int(ids[i]), class_name(info, labels[i]), images[i], [made[i] for made in columns])
        for i in range(min(_SAMPLES, together))
    ]


def class_name(info: ImageInfo, label: int) -> str:
    """What a class is called; `class 3` where it has no name."""
    return name_of(label, info.class_names) or f"class {label}"


def copies_of(
    task: InstanceMaker,
    info: ImageInfo,
    images: tuple[Image, ...],
    keys: npt.NDArray[np.uint64],
) -> npt.NDArray[np.float32]:
    """One copy of each image of a ghost batch, scaled back to visible colours.

    Args:
        task: makes the copies.
        info: facts of the dataset.
        images: uint8 [H, W, C] each.
        keys: uint64 [n].

    Returns:
        float32 [n, H, W, C] in 0 … 1; what cutout sets to zero is the mean colour of the dataset.
    """
    labels = np.zeros(len(keys), np.int64)
    made = make(task, list(images), labels, keys, ghost_batch=len(keys))
    return _unscaled(made[task.augmented].numpy(), info)


def _unscaled(seen: npt.NDArray[np.float32], info: ImageInfo) -> npt.NDArray[np.float32]:
    mean, std = np.array([info.mean, info.std], np.float32)
    return np.clip(seen * std + mean, 0, 1)
