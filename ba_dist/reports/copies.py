"""A page of images: augmented copies of a few samples."""

import textwrap
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ba_dist import experiment
from ba_dist.config import Config
from ba_dist.data.copies import first_copies
from ba_dist.data.sources import ImageInfo, Source
from ba_dist.errors import ConfigError
from ba_dist.reports.plots import plt, save

_LEFT, _TOP = 1.3, 0.6  # inches that words take


def plot_copies(config: Config, source: Source, output: Path) -> Path:
    """Draws the first copies of a few samples in rows, each after its original; see `first_copies`.

    Args:
        config: of the run.
        source: its training samples.
        output: the file to write; its suffix chooses the format.

    Raises:
        UserError: when the plot cannot be written.
        ConfigError: when the samples are no images.
    """
    if not isinstance(source.info, ImageInfo):
        raise ConfigError(
            f"the samples of {source.info.name} are no images, so there is nothing to draw of"
            f" {config.recipe}; its copies differ inside the network"
        )
    samples = first_copies(config, experiment.task_of(config, source.info), source)
    rows, copies = len(samples), len(samples[0].copies)
    size = (1.5 * (copies + 1) + _LEFT, 1.5 * rows + _TOP)
    figure, axes = plt.subplots(rows, copies + 1, figsize=size, squeeze=False)
    sides = _LEFT / size[0], 0.05 / size[1], 1 - 0.05 / size[0], 1 - _TOP / size[1]
    figure.subplots_adjust(*sides, 0.05, 0.05)
    for row, sample in enumerate(samples):
        _show(axes[row, 0], sample.original / 255, "original" if row == 0 else "")
        name = textwrap.fill(sample.label, 18, max_lines=3, placeholder="…")
        axes[row, 0].set_ylabel(
            f"sample {sample.sample}\n{name}",
            fontsize=8,
            rotation="horizontal",
            horizontalalignment="right",
            verticalalignment="center",
            parse_math=False,
        )
        for copy, shown in enumerate(sample.copies):
            _show(axes[row, copy + 1], shown, f"copy {copy}" if row == 0 else "")
    of_all = f"the first {copies} of " * (copies < config.batch.multiplicity)
    title = f"{config.title} on {source.info.name}\n{of_all}M = {config.batch.multiplicity}"
    figure.suptitle(title, fontsize=10, y=1 - 0.05 / size[1])
    return save(figure, output, f"ba-dist plot augmentations {config.title}")


def _show(axis: Any, image: npt.NDArray[Any], title: str) -> None:
    grey = image.shape[2] == 1
    axis.imshow(image[..., 0] if grey else image, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=8)
