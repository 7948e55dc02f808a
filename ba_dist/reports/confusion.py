"""A picture of which classes a network takes for which others."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ba_dist.reports.plots import plt, save
from ba_dist.rules.confusion import Counts, name_of

_NUMBERED, _NAMED = 20, 60  # so many classes have numbers in their cells, and their names beside


def plot_confusion(
    counts: Counts, names: Sequence[str], title: str, *, output: Path, mark: str
) -> Path:
    """Draws a confusion matrix; the colour is the share of the label's samples.

    Args:
        counts: int64 [classes, classes], rows by label, columns by answer.
        names: of the classes, where they are known.
        title: above the picture.
        output: the file to write; its suffix chooses the format.
        mark: that an earlier picture of the same run holds.

    Raises:
        UserError: when the plot cannot be written.
    """
    classes = len(counts)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = min(9.0, 3.5 + 0.45 * classes)
    figure, axis = plt.subplots(figsize=(side + 1, side), constrained_layout=True)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axis, shrink=0.8, label="share of the label's samples")
    axis.set(xlabel="answer", ylabel="label")
    axis.set_title(title, parse_math=False)  # a dollar in a name is one
    if classes <= _NAMED:
        told = [name_of(i, names) or str(i) for i in range(classes)]
        rotation = 45 if any(len(name) > 2 for name in told) else 0
        anchor = "right" if rotation else "center"
        axis.set_xticks(
            range(classes), told, rotation=rotation, ha=anchor, fontsize=8, parse_math=False
        )
        axis.set_yticks(range(classes), told, fontsize=8, parse_math=False)
    if classes <= _NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = str(counts[row, column])
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    return save(figure, output, mark)
