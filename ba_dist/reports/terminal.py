"""Curves on a terminal, in characters."""

import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ba_dist.reports.history import Floats, printable
from ba_dist.reports.ticks import ticks_of_log

_HEIGHT = 24  # lines at most, so that a command and its picture fit on a screen
_COLORS = ("blue", "orange", "green", "magenta", "cyan", "red", "yellow", "white")
# Without colours lines are told apart by their marks, filled and hollow.
_MARKS = (("●", "○"), ("▲", "△"), ("◆", "◇"), ("■", "□"), ("★", "☆"), ("▼", "▽"), ("x", "+"))


@dataclass(frozen=True)
class Drawn:
    """A line of a picture.

    Args:
        label: in the legend.
        x, y: [n].
        group: lines of one group have one colour;
        hollow: and one of them is drawn more lightly.
    """

    label: str
    x: Floats
    y: Floats
    group: int
    hollow: bool = False


def chart(lines: Sequence[Drawn], x_label: str, title: str, log: bool = False) -> str:
    """A picture as wide as the terminal; coloured where it goes to one.

    Args:
        lines: at least one with a point.
        x_label: of the axis.
        title: what y is, with its unit.
        log: whether y is logarithmic; what is not above 0 is left out.
    """
    import plotext

    size = shutil.get_terminal_size((100, _HEIGHT))
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(size.columns, min(size.lines - 2, _HEIGHT))
    shown, legend, colored = [], [], sys.stdout.isatty()
    for line in lines:
        good = np.isfinite(line.y) & ((line.y > 0) | (not log))
        if not good.any():
            continue
        y = np.log10(line.y[good]) if log else line.y[good]
        shown.append(y)
        marker = _MARKS[line.group % len(_MARKS)][line.hollow]
        if colored:
            marker = "·" if line.hollow else "braille"
        color = _COLORS[line.group % len(_COLORS)]
        plotext.plot(line.x[good].tolist(), y.tolist(), marker=marker, color=color)
        mark = ("···" if line.hollow else "━━━") if colored else marker
        legend.append(f"  {plotext.colorize(mark, color)} {printable(line.label)}")
    if log and shown:
        ticks = ticks_of_log(min(y.min() for y in shown), max(y.max() for y in shown))
        plotext.yticks([math.log10(tick) for tick in ticks], [f"{tick:.3g}" for tick in ticks])
    plotext.title(title)
    plotext.xlabel(x_label)
    # The legend is below: inside, plotext lays it over the lines.
    text = "\n".join([plotext.build().rstrip("\n"), *legend])
    return text if colored else plotext.uncolorize(text)
