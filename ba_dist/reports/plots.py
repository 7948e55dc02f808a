"""Plots of runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from ba_dist.errors import UserError, reason
from ba_dist.reports.files import check_picture, check_replaceable, default_output, mark_of
from ba_dist.reports.history import Floats, History, read
from ba_dist.reports.lines import smooth, window_of
from ba_dist.reports.style import color_of, look_of, marker_of
from ba_dist.run.names import common_name

_LETTERS = 140  # that a line of the legend holds
_MARKS = 8  # of a line of many points, about
_Look = dict[str, Any]
_RAW: _Look = {"alpha": 0.25, "linewidth": 0.8}
_SMOOTH: _Look = {"linewidth": 1.8}
_EVALUATED: _Look = {"linestyle": "--", "linewidth": 1}


@dataclass(frozen=True)
class _Run:
    """What is drawn of a run.

    Args:
        label: name, recipe, B and M.
        history: what it has left.
        number: of its colour and marker.
    """

    label: str
    history: History
    number: int

    @property
    def steps_per_epoch(self) -> int:
        """0 where the run does not say."""
        return self.history.steps_per_epoch

    @property
    def color(self) -> str:
        """Of its lines."""
        return color_of(self.number)

    def series(self, event: str, name: str) -> tuple[Floats, Floats]:
        """(steps, values) of a number."""
        return self.history.series(event, name)


def plot_runs(runs: list[Path], output: Path | None = None) -> Path:
    """Draws loss, accuracy, learning rate and gradient norm of runs.

    Single steps are light; over them lies the mean of the steps around. What was found in
    validation is in the panel of the same number of training. Epochs count from 1: the first has
    ended at 1.

    Args:
        runs: run directories; each has a colour and a marker.
        output: the file to write; its suffix chooses the format. By default `curves.png` in the
            directory of the one run, or `curves-NAME-NAME.png` in the current folder.

    Raises:
        UserError: when a folder has no metrics, or the plot cannot be written.
    """
    output = output or default_output(runs, "curves.png")
    drawn = [_read(run, number) for number, run in enumerate(runs)]
    by = (common_name(run.history.judged.by) for run in drawn)
    judged = next((name for name in by if name != "loss"), "accuracy")
    panels: list[tuple[str, str, str]] = [
        ("loss", "loss", "log"),
        (judged, judged, "linear"),
        ("lr", "learning rate", "linear"),
        ("grad_norm", "gradient norm", "log"),
    ]
    window = window_of(max(len(run.series("step", "loss")[0]) for run in drawn))
    label, length = _axis(drawn)
    figure, axes = plt.subplots(2, 2, sharex=True, layout="constrained")
    figure.set_size_inches(11, 7.2 + 0.2 * len(runs))
    for axis, (name, title, scale) in zip(axes.flat, panels, strict=True):
        for below, run in zip(reversed(range(len(drawn))), drawn, strict=True):
            unit = run.steps_per_epoch if length == "epoch" else 1
            steps, values = run.series("step", name)
            if name == "lr":  # not measured: nothing to smooth, but often the same in all runs
                width = 2 + below * min(2, 10 / len(drawn))
                marks = marks_of(run.number, len(steps))
                axis.plot(steps / unit, values, color=run.color, linewidth=width, **marks)
                continue
            if window > 1:
                axis.plot(steps / unit, values, color=run.color, **_RAW)
            look = {**_SMOOTH, **marks_of(run.number, len(steps))}
            axis.plot(steps / unit, smooth(values, window), color=run.color, **look)
            for found in _validations(run, name):
                steps, values = run.series("epoch", found)
                look = {**_EVALUATED, **marks_of(run.number, len(steps), most=30)}
                axis.plot(steps / unit, values, color=run.color, **look)
        set_scale(axis, scale)
        axis.set(title=title, xlabel=label)
    _legends(figure, axes.flat[:2], drawn, window)
    return save(figure, output, mark_of("plot", runs, output))


def marks_of(number: int, points: int, most: int = _MARKS) -> _Look:
    """The marker of a line: at every point of a few, else at some, which differ from line to line.

    Args:
        number: of the line.
        points: that it has.
        most: that are all marked.
    """
    every = 1 if points <= most else -(-points // _MARKS)
    first = number * every // 3 % every
    return {"marker": marker_of(number), "markersize": 4.5, "markevery": (first, every)}


def key_of(number: int) -> Line2D:
    """The line of a legend, with colour and marker."""
    return Line2D([], [], linewidth=2.5, markersize=6, **look_of(number))


def set_scale(axis: Any, scale: str, whole: bool = True) -> None:
    """Ticks that are read at a glance: whole epochs; 0.5, 1, 2 … where y is logarithmic."""
    axis.set_yscale(scale)
    if scale == "log":
        low, high = axis.get_ylim()
        subs = (1, 1.5, 2, 3, 5, 7) if high < 10 * low else (1, 2, 5) if high < 1000 * low else (1,)
        axis.yaxis.set_major_locator(LogLocator(subs=subs))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=whole))
    axis.tick_params(labelbottom=True)  # also where the axis is shared with the panel below
    axis.grid(alpha=0.3)


def save(figure: Any, output: Path, mark: str) -> Path:
    """Writes a plot; its suffix chooses the format.

    Args:
        figure: of matplotlib.
        output: the file; one that is there is replaced if it is an earlier plot of the same.
        mark: what the plot shows, as the file itself keeps it.

    Raises:
        UserError: when it cannot be written, its suffix is unknown, or another file is there.
    """
    try:
        check_picture(output)
        check_replaceable(output, mark, "plot")
        figure.savefig(output, dpi=130, metadata={"Title": mark})
    except (OSError, ValueError) as error:
        raise UserError(f"the plot cannot be written: {reason(error)}") from None
    finally:
        plt.close(figure)
    return output


def _read(run: Path, number: int) -> _Run:
    name, history = f"{run}", read(run)
    name = name if len(name) <= 70 else f"…{name[-69:]}"
    try:
        config = history.config
        batch = config["batch"]
        baseline = config.get("baseline", "none")  # earlier versions do not say
        made = config["recipe"] + ("" if baseline == "none" else f" ({baseline})")
        says = f"{made}, B = {batch['batch_size']}, M = {batch['multiplicity']}"
    except (KeyError, TypeError):  # curves can be drawn all the same
        return _Run(name, history, number)
    return _Run(f"{name}: {says}", history, number)


def _validations(run: _Run, name: str) -> Iterator[str]:
    """What evaluations have found that is to be compared with a number of training."""
    names = dict.fromkeys(key for e in run.history.events if e["event"] == "epoch" for key in e)
    return (key for key in names if key.startswith("val_") and common_name(key) == name)


def _axis(runs: list[_Run]) -> tuple[str, str]:
    """(label, unit) of the x axes: epochs if every run knows them and one was long enough."""
    lengths = {run.steps_per_epoch for run in runs}
    ended = any(
        e["event"] == "epoch" and e["step"] >= run.steps_per_epoch
        for run in runs
        for e in run.history.events
    )
    if 0 in lengths or not ended:
        return "step", "step"
    same = f" ({lengths.pop()} steps each)" if len(lengths) == 1 else ""
    return f"epoch{same}", "epoch"


def _legends(figure: Any, panels: Any, runs: list[_Run], window: int) -> None:
    """Colours and markers are runs, below; kinds of lines are in the panels that have several."""
    steps = [Line2D([], [], color="black", **_RAW)] if window > 1 else []
    lines = [*steps, Line2D([], [], color="black", **_SMOOTH)]
    texts = ["training, single steps"] * (window > 1)
    texts += [f"training, mean of {window} logged steps" if window > 1 else "training"]
    for axis in panels:
        axis.legend(
            [*lines, Line2D([], [], color="black", **_EVALUATED)],
            [*texts, "validation"],
            fontsize=8,
        )
    keys = [key_of(run.number) for run in runs]
    columns = max(1, min(3, _LETTERS // (8 + max(len(run.label) for run in runs))))
    places = [f"{i}" for i in range(len(runs))]
    legend = figure.legend(keys, places, loc="outside lower center", ncols=columns, fontsize=9)
    for text, run in zip(legend.get_texts(), runs, strict=True):
        text.set_parse_math(False)  # a dollar in the name of a folder is one
        text.set_text(run.label)
