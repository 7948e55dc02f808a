"""Figures 1 to 5 of the paper: error of training and validation, norm of the gradient."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ba_dist.errors import UserError
from ba_dist.reports.files import mark_of
from ba_dist.reports.history import printable, read
from ba_dist.reports.lines import (
    X_LABELS,
    Curve,
    Line,
    Metric,
    X,
    curve,
    lines_of,
    metric_of,
    smooth,
    training_kind,
    window_of,
)
from ba_dist.reports.plots import Line2D, key_of, marks_of, plt, save, set_scale
from ba_dist.reports.style import color_of, look_of
from ba_dist.reports.terminal import Drawn, chart

_Look = dict[str, Any]
_Pair = tuple[Curve, Curve]  # training, validation
_TRAINING: _Look = {"linestyle": (0, (4, 2)), "linewidth": 1.3, "markerfacecolor": "white"}
_VALIDATION: _Look = {"linewidth": 1.9}
_BAND, _RAW = 0.2, 0.25  # how much of its colour a band has, and what lies under a smoothed line


class _End(NamedTuple):
    """What was found last: by evaluations, of a metric that they have.

    Args:
        mean: over seeds; NaN where there is nothing yet.
        deviation: 0 of one seed.
        early: the step that it is of, where the runs have not come to their end.
    """

    mean: float
    deviation: float
    early: int | None


def plot_curves(runs: Sequence[Path], x: X, name: str | None, output: Path | None) -> str:
    """Draws a metric of training (dashed) and validation (solid), and what was found at the end.

    Runs that differ in the seed alone are one line, their mean, in a band of a deviation (n - 1).

    Args:
        runs: run directories.
        x: what the axis counts.
        name: of the metric; None for what the runs are judged by.
        output: the file to write, its suffix chooses the format; None for the terminal.

    Returns:
        The path of the file, or the text to show.

    Raises:
        UserError: when a folder has no metrics, or the plot cannot be written.
        ConfigError: when no run has such a metric.
    """
    histories = [read(run) for run in dict.fromkeys(runs)]
    metric = metric_of(histories, name)
    lines = lines_of(histories, metric.places)
    found = [(_training(line, metric, x), _validation(line, metric, x)) for line in lines]
    if not any(len(c.x) for pair in found for c in pair):
        raise UserError(f"no run has written down any {metric.name} yet")
    ends = [_end(line, metric, pair) for line, pair in zip(lines, found, strict=True)]
    if output is None:
        return _on_terminal(lines, found, ends, metric, x=x)
    figure, (axis, bars) = plt.subplots(
        1, 2, width_ratios=(3.2, min(1.6, 0.3 + 0.28 * len(lines))), layout="constrained"
    )
    figure.set_size_inches(8.5 + min(2.5, 0.25 * len(lines)), 4.8)
    for number, (training, validation) in enumerate(found):
        _draw(axis, training, number, _TRAINING)
        _draw(axis, validation, number, _VALIDATION)
    set_scale(axis, "log" if metric.log else "linear", whole=x in ("epoch", "step"))
    axis.set(xlabel=X_LABELS[x], ylabel=metric.title)
    _bars(bars, ends, metric)
    short = [line.label.split(" (")[0] for line in lines]
    if max(map(len, short)) <= min(9, 44 // len(lines)):  # letters that have room below a bar
        bars.set_xticks(range(len(lines)), short, fontsize=8, parse_math=False)
    else:
        _marks_below(bars, len(lines))
    _kinds(axis, found, any(len(line.runs) > 1 for line in lines))
    _legend(figure, lines)
    return str(save(figure, output, mark_of("plot curves", runs, output)))


def _on_terminal(
    lines: list[Line], found: list[_Pair], ends: list[_End], metric: Metric, *, x: X
) -> str:
    drawn = [
        Drawn(f"{line.label}, {kind}", c.x, c.mean, group, hollow=kind == "training")
        for group, (line, pair) in enumerate(zip(lines, found, strict=True))
        for kind, c in zip(("training", "validation"), pair, strict=True)
        if len(c.x)
    ]
    table = [
        f"{printable(line.label)}: {_told(end, metric)}"
        for line, end in zip(lines, ends, strict=True)
    ]
    return "\n".join([chart(drawn, X_LABELS[x], metric.title, metric.log), "", *table])


def plot_gradient_norm(runs: Sequence[Path], x: X, output: Path | None) -> str:
    """Draws the norm of the gradient at every step that was written down, and its running mean.

    Args, returns and errors as of `plot_curves`.
    """
    histories = [read(run) for run in dict.fromkeys(runs)]
    metric = metric_of(histories, "grad_norm")
    lines = lines_of(histories, metric.places)
    found = [curve(line, "step", "grad_norm", x) for line in lines]
    window = window_of(max(len(c.x) for c in found))
    smoothed = [smooth(c.mean, window) for c in found]
    if output is None:
        parts = enumerate(zip(lines, found, smoothed, strict=True))
        drawn = [Drawn(line.label, c.x, mean, group) for group, (line, c, mean) in parts]
        title = f"{metric.title}, mean of {window} steps" if window > 1 else metric.title
        return chart(drawn, X_LABELS[x], title, log=True)
    figure, axis = plt.subplots(layout="constrained")
    figure.set_size_inches(8.5, 5)
    for number, line in enumerate(lines):
        for run in line.runs:
            alone = curve(Line("", (run,)), "step", "grad_norm", x)
            size = 3 if len(alone.x) > 300 else 6
            look: _Look = {"color": color_of(number), "alpha": _RAW, "markersize": size, "mew": 0}
            axis.plot(alone.x, alone.mean, ".", **look)
    for number, (c, mean) in enumerate(zip(found, smoothed, strict=True)):
        look = {**_VALIDATION, **marks_of(number, len(c.x))}
        axis.plot(c.x, mean, color=color_of(number), **look)
    set_scale(axis, "log", whole=x in ("epoch", "step"))
    axis.set(xlabel=X_LABELS[x], ylabel=metric.title)
    points = Line2D([], [], color="black", linestyle="", marker=".", alpha=2 * _RAW)
    line_key = Line2D([], [], color="black", **_VALIDATION)
    text = f"mean of {window} logged steps" if window > 1 else "mean"
    axis.legend([points, line_key], ["single steps", text], fontsize=8)
    _legend(figure, lines)
    return str(save(figure, output, mark_of("plot gradient-norm", runs, output)))


_NOTHING = Curve(np.zeros(0), np.zeros(0), np.zeros(0))


def _training(line: Line, metric: Metric, x: X) -> Curve:
    if not metric.training:
        return _NOTHING
    kind = training_kind(line, metric.training)
    found = _changed(curve(line, kind, metric.training, x), lambda v: metric.of(v, True))
    if kind == "epoch":
        return found
    window = window_of(len(found.x))
    return Curve(found.x, smooth(found.mean, window), smooth(found.deviation, window))


def _validation(line: Line, metric: Metric, x: X) -> Curve:
    if not metric.validation:
        return _NOTHING
    return _changed(curve(line, "epoch", metric.validation, x), metric.of)


def _changed(found: Curve, change: Callable[[Any], Any]) -> Curve:
    """A curve of changed numbers; the deviation is that which the change makes of it nearby."""
    mean = change(found.mean)
    return Curve(found.x, mean, np.abs(change(found.mean + found.deviation) - mean))


def _end(line: Line, metric: Metric, pair: _Pair) -> _End:
    training, validation = pair
    last = validation if metric.validation else training
    if not len(last.x):
        return _End(math.nan, 0.0, None)
    kind = "epoch" if metric.validation else training_kind(line, metric.training)
    name = metric.validation or metric.training
    step = int(curve(line, kind, name, "step").x[-1])
    furthest = max(e["step"] for run in line.runs for e in run.of(kind) if name in e)
    ended = step == furthest and all(run.summary for run in line.runs)
    return _End(last.mean[-1], last.deviation[-1], None if ended else step)


def _told(end: _End, metric: Metric) -> str:
    if math.isnan(end.mean):
        return f"no {metric.name} yet"
    form = ".2f" if metric.change else ".4g"
    more = f" ± {end.deviation:{form}}" if end.deviation else ""
    when = "at the end" if end.early is None else f"at step {end.early}, not at the end"
    return f"{end.mean:{form}}{more}{' %' if metric.change else ''} {metric.name} {when}"


def _draw(axis: Any, found: Curve, number: int, look: _Look) -> None:
    color = color_of(number)
    axis.plot(found.x, found.mean, color=color, **look, **marks_of(number, len(found.x), most=12))
    if found.deviation.any():
        low, high = found.mean - found.deviation, found.mean + found.deviation
        axis.fill_between(found.x, low, high, color=color, alpha=_BAND, linewidth=0)


def _bars(axis: Any, ends: list[_End], metric: Metric) -> None:
    """A bar for each line, with its number; a whisker of a deviation where there are seeds.

    One of runs that have not come to their end says at which step it is.
    """
    for place, (mean, deviation, early) in enumerate(ends):
        if not math.isfinite(mean):
            continue
        axis.bar(place, mean, color=color_of(place), width=0.7)
        if deviation:
            axis.errorbar(place, mean, deviation, color="black", capsize=4, linewidth=1)
        text = f"{mean:.2f}" if metric.change else f"{mean:.3g}"
        text += "" if early is None else f"\nstep {early}"
        above = {"xytext": (0, 3), "textcoords": "offset points"}
        size = 9 if len(ends) <= 4 else 7
        axis.annotate(text, (place, mean + deviation), ha="center", fontsize=size, **above)
    axis.set_xlim(-0.7, len(ends) - 0.3)
    axis.set_xticks([])
    axis.margins(y=0.1)
    axis.set_title(f"final {metric.title}", fontsize=10, wrap=True)
    axis.spines[["top", "right"]].set_visible(False)


def _marks_below(axis: Any, number: int) -> None:
    """Which bar is which line, by its marker, where there is no room for names."""
    for place in range(number):
        below = {"transform": axis.get_xaxis_transform(), "clip_on": False}
        axis.plot(place, -0.04, markersize=6, **look_of(place), **below)


def _kinds(axis: Any, found: list[_Pair], seeds: bool) -> None:
    """What dashes and bands are, beside the colours."""
    handles: list[Any] = []
    texts = []
    for number, (look, text) in enumerate(((_TRAINING, "training"), (_VALIDATION, "validation"))):
        if any(len(pair[number].x) for pair in found):
            handles.append(Line2D([], [], color="black", **look))
            texts.append(text)
    if seeds:
        handles.append(plt.Rectangle((0, 0), 1, 1, color="black", alpha=_BAND, linewidth=0))
        texts.append("mean ± deviation over seeds")
    axis.legend(handles, texts, fontsize=8)


def _legend(figure: Any, lines: list[Line]) -> None:
    """Which colour and marker is which line, below; the figure becomes higher by its rows."""
    keys = [key_of(number) for number in range(len(lines))]
    shown = [ln.label if len(ln.label) <= 90 else f"{ln.label[:89]}…" for ln in lines]
    columns = max(1, min(4, 100 // (8 + max(map(len, shown)))))
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.2 * math.ceil(len(lines) / columns))
    places = [f"{i}" for i in range(len(lines))]
    legend = figure.legend(keys, places, loc="outside lower center", ncols=columns, fontsize=9)
    for text, label in zip(legend.get_texts(), shown, strict=True):
        text.set_parse_math(False)  # a dollar in a name is one
        text.set_text(label)
