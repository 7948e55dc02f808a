"""A page of images: augmented copies of a few samples."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist import experiment
from ba_dist.config import Config
from ba_dist.data.batch import InstanceMaker, make
from ba_dist.data.sources import Image, ImageInfo, Source
from ba_dist.reports.plots import plt, save
from ba_dist.rules.keys import augmentation_keys
from ba_dist.rules.order import shuffle

_SAMPLES, _COPIES = 4, 8
_LEFT, _TOP = 1.3, 0.6  # inches that words take


def plot_copies(config: Config, source: Source, output: Path) -> Path:
    """Draws the first copies of a few samples in rows, each after its original.

    The samples are the first of the first epoch, in the order of --shuffle. The pixels are those
    that the network is trained on, mixed with their partners where that is on.

    Args:
        config: of the run.
        source: its training samples.
        output: the file to write; its suffix chooses the format.

    Raises:
        UserError: when the plot cannot be written.
    """
    task = experiment.task_of(config, source.info)
    together = min(config.batch.ghost_batch_size, config.batch.batch_size, len(source))
    data = config.data
    order = shuffle(data.shuffle, data.shuffle_block, data.shuffle_window)
    ids = order(len(source), config.run.seed, 0)(np.arange(together))
    images, labels = zip(*(source.decode(source.read(int(i))) for i in ids), strict=True)
    copies = min(config.batch.multiplicity, _COPIES)
    columns = [
        copies_of(task, source.info, images, augmentation_keys(config.run.seed, 0, ids, copy))
        for copy in range(copies)
    ]
    rows = min(_SAMPLES, together)
    size = (1.5 * (copies + 1) + _LEFT, 1.5 * rows + _TOP)
    figure, axes = plt.subplots(rows, copies + 1, figsize=size, squeeze=False)
    sides = _LEFT / size[0], 0.05 / size[1], 1 - 0.05 / size[0], 1 - _TOP / size[1]
    figure.subplots_adjust(*sides, 0.05, 0.05)
    for row in range(rows):
        _show(axes[row, 0], images[row] / 255, "original" if row == 0 else "")
        axes[row, 0].set_ylabel(
            f"sample {ids[row]}\n{_class_name(source.info, labels[row])}",
            fontsize=8,
            rotation="horizontal",
            horizontalalignment="right",
            verticalalignment="center",
            parse_math=False,
        )
        for copy, shown in enumerate(columns):
            _show(axes[row, copy + 1], shown[row], f"copy {copy}" if row == 0 else "")
    of_all = f"the first {copies} of " * (copies < config.batch.multiplicity)
    title = f"{config.recipe} on {source.info.name}\n{of_all}M = {config.batch.multiplicity}"
    figure.suptitle(title, fontsize=10, y=1 - 0.05 / size[1])
    return save(figure, output, f"ba-dist plot augmentations {config.recipe}")


def _class_name(info: ImageInfo, label: int) -> str:
    """What a class is called, in up to three short lines; its number where it has no name."""
    if not info.class_names:
        return f"class {label}"
    return textwrap.fill(info.class_names[label], 18, max_lines=3, placeholder="…")


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


def _show(axis: Any, image: npt.NDArray[Any], title: str) -> None:
    grey = image.shape[2] == 1
    axis.imshow(image[..., 0] if grey else image, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=8)
