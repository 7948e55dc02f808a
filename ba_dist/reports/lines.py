"""Which lines a picture of runs has: one for all seeds of a run, its axes, its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ba_dist.errors import ConfigError, UserError
from ba_dist.reports.history import Floats, History, differing, text
from ba_dist.run.names import common_name, is_share

X = Literal["epoch", "step", "hours", "samples", "instances"]
X_LABELS: dict[str, str] = {
    "epoch": "epoch",
    "step": "step",
    "hours": "hours of training",
    "samples": "distinct samples",
    "instances": "instances (augmented copies)",
}
# Settings that have a letter in the paper, and stand first.
_LETTERS = {"multiplicity": "M", "batch_size": "B"}
_TOLD = 4  # settings that a name holds in any case
_FIRST = ("recipe", "baseline", "multiplicity", "batch_size")
Places = Sequence[tuple[str, str]]  # kind of event, name in it


@dataclass(frozen=True)
class Line:
    """Runs that differ in the seed alone.

    Args:
        label: what tells this line from the others of the picture.
        runs: one for each seed.
    """

    label: str
    runs: tuple[History, ...]


@dataclass(frozen=True)
class Metric:
    """A number of training and of evaluation that are compared in one picture.

    Args:
        name: as --metric has it.
        title: with its unit.
        training: its name in training; empty where it has none.
        validation: its name in evaluations; empty where it has none.
        change: what is done to both: nothing, `percent`, `error` (100 % less the share).
        log: of --metric loss and the like: the axis is logarithmic.
    """

    name: str
    title: str
    training: str
    validation: str
    change: str = ""
    log: bool = False

    @property
    def places(self) -> Places:
        """Where events have it, that of evaluations first."""
        return [("epoch", self.validation), ("step", self.training), ("epoch", self.training)]

    def of(self, values: Floats, training: bool = False) -> Floats:
        """The numbers to show, of those that a run has written down."""
        if training and self.training == "token_loss" and self.name == "perplexity":
            return np.exp(np.minimum(values, 700))  # as evaluations have it
        if self.change == "error":
            return 100 * (1 - values)
        return 100 * values if self.change == "percent" else values


@dataclass(frozen=True)
class Curve:
    """The mean over seeds, point by point.

    Args:
        x, mean: [n].
        deviation: [n], of a sample (n - 1); zeros where there is one seed.
    """

    x: Floats
    mean: Floats
    deviation: Floats


def lines_of(histories: Sequence[History], places: Places = ()) -> list[Line]:
    """Puts runs together that differ in the seed alone; those of few copies come first.

    Two runs of one seed are two lines: they are not two results.

    Args:
        histories: of runs.
        places: of what is drawn. Where some seeds of a line have it at the first of these places
            that any of them has, the others are left out, and the label says so.
    """
    groups: dict[tuple[Any, ...], list[History]] = {}
    for history in histories:
        named = {k: text(v) for k, v in history.settings().items() if k != "seed"}
        # A run of which nothing is known is like no other one.
        key = tuple(sorted(named.items())) if history.config else (str(history.folder),)
        number = 0
        while history.seed in [run.seed for run in groups.get((key, number), ())]:
            number += 1
        groups.setdefault((key, number), []).append(history)
    # As they came in otherwise: a shell has multiplicity=16 before multiplicity=2.
    runs = sorted(groups.values(), key=lambda group: group[0].multiplicity)
    labels = labels_of([group[0] for group in runs])
    if len(runs) == 1 and len(runs[0]) > 1:
        labels = [text(runs[0][0].settings()["recipe"])]
    shown = [_having(group, places) for group in runs]
    seeds = [_seeds(len(mine), len(group)) for mine, group in zip(shown, runs, strict=True)]
    return [Line(a + b, tuple(g)) for a, b, g in zip(labels, seeds, shown, strict=True)]


def _having(group: list[History], places: Places) -> list[History]:
    """Those that have a number, at the first place where any of them has one; else all."""
    for kind, name in places:
        if found := [run for run in group if len(run.series(kind, name)[0])]:
            return found
    return group


def _seeds(shown: int, of: int) -> str:
    if of == 1:
        return ""
    return f" ({of} seeds)" if shown == of else f" ({shown} of {of} seeds)"


def labels_of(runs: Sequence[History], seeds: bool = False) -> list[str]:
    """What differs among runs, of much what tells them apart; names where nothing differs.

    Args:
        runs: one or more.
        seeds: whether seeds are told.
    """
    if len(runs) == 1:
        return [runs[0].name]
    every = [run.settings() for run in runs]
    names = [name for name in differing(runs) if seeds or name != "seed"]
    names.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    chosen: list[str] = []
    apart = 1
    for name in names:
        keys = {tuple(text(s.get(n)) for n in [*chosen, name]) for s in every}
        if name in _FIRST or len(names) <= _TOLD or len(keys) > apart:
            chosen.append(name)
            apart = len(keys)
    labels = [", ".join(_setting(n, s.get(n)) for n in chosen) for s in every]
    alone = {label for label in labels if labels.count(label) == 1 and label}
    return [
        label if label in alone else f"{run.name}{': ' + label if label else ''}"
        for label, run in zip(labels, runs, strict=True)
    ]


def _setting(name: str, value: Any) -> str:
    if name == "baseline":
        return "batch augmentation" if text(value) == "none" else text(value)
    if name == "recipe":
        return text(value)
    if name in _LETTERS:
        return f"{_LETTERS[name]} = {text(value)}"
    if isinstance(value, bool):
        return f"{'' if value else 'no '}{name.replace('_', '-')}"
    return f"{name.replace('_', '-')} {text(value)}"


def metric_of(histories: Sequence[History], name: str | None) -> Metric:
    """The metric that has this name; by default what runs are judged by, as an error if a share.

    Raises:
        ConfigError: naming those that there are.
    """
    training, validation = _found(histories)
    by = histories[0].judged.by
    judged = common_name(by)
    for told in (by, "val_loss"):  # also before the first evaluation
        validation.setdefault(common_name(told), told)
    share = judged if is_share(judged) else next((n for n in validation if is_share(n)), "")
    if name is None:
        name = "error" if is_share(judged) else judged
    if name == "error" and share:
        title = "error" if share == "accuracy" else f"error of {share.replace('_', ' ')}"
        return Metric("error", f"{title} (%)", training.get(share, ""), validation[share], "error")
    if name == "perplexity" and name in validation:
        return Metric(name, name, training.get("token_loss", ""), validation[name], log=True)
    if name not in {**training, **validation}:
        known = [*(["error"] if share else []), *dict.fromkeys([*validation, *training])]
        raise ConfigError(f"no run has a metric {name!r}; there are: {', '.join(known)}")
    titles = {"grad_norm": "L2 norm of the gradient", "lr": "learning rate"}
    title = titles.get(name, name.replace("_", " "))
    change = "percent" if is_share(name) else ""
    log = name == "grad_norm" or name.endswith("loss")
    ends = training.get(name, ""), validation.get(name, "")
    return Metric(name, f"{title} (%)" if change else title, *ends, change, log)


def _found(histories: Sequence[History]) -> tuple[dict[str, str], dict[str, str]]:
    """Common name → name in events, of training and of evaluations."""
    counts = ("event", "step", "epoch", "updates", "samples", "instances", "seconds")
    training: dict[str, str] = {}
    validation: dict[str, str] = {}
    for history in histories:
        for event in (*history.of("epoch"), *history.of("step")):
            for name, value in event.items():
                if isinstance(value, (int, float)) or value is None:
                    found = validation if name.startswith("val_") else training
                    if name not in counts:
                        found[common_name(name)] = name
    return training, validation


def training_kind(line: Line, name: str) -> str:
    """Where a number of training is found: `epoch`, as means, or single steps."""
    means = all(any(name in event for event in run.of("epoch")) for run in line.runs)
    return "epoch" if means else "step"


def curve(line: Line, kind: str, name: str, x: X) -> Curve:
    """A number of a line over an axis, where all of its runs have it.

    Args:
        line: one or more runs.
        kind: of events: step or epoch.
        name: in the events.
        x: the axis.

    Raises:
        UserError: when a run does not know where its events are on the axis.
    """
    found = [dict(zip(*run.series(kind, name), strict=True)) for run in line.runs]
    steps = sorted(set.intersection(*(set(values) for values in found)))
    if not steps:
        return Curve(np.zeros(0), np.zeros(0), np.zeros(0))
    values = np.array([[of[step] for step in steps] for of in found])
    axis = np.array([positions(run, steps, x) for run in line.runs])
    deviation = values.std(0, ddof=1) if len(found) > 1 else np.zeros(len(steps))
    return Curve(axis.mean(0), values.mean(0), deviation)


def positions(run: History, steps: Sequence[float], x: X) -> Floats:
    """Where steps of a run are on an axis.

    Raises:
        UserError: when the run does not say.
    """
    if x == "step":
        return np.array(steps, float)
    if x == "epoch":
        if not run.steps_per_epoch:
            raise UserError(f"{run.folder} does not say how long an epoch is; take --x step")
        return np.array(steps, float) / run.steps_per_epoch
    key, unit = ("seconds", 3600) if x == "hours" else (x, 1)
    known = {event["step"]: event.get(key) for event in run.events if event["event"] != "straggler"}
    if any(known.get(step) is None for step in steps):
        raise UserError(
            f"{run.folder} was written by an earlier version, which did not write down {key};"
            " take --x epoch or --x step"
        )
    return np.array([known[step] for step in steps], float) / unit


def smooth(values: Floats, window: int) -> Floats:
    """The mean of each value and those around it.

    Args:
        values: [n].
        window: an odd number of values; fewer are averaged where some would lie beyond an end.
    """
    if window == 1:
        return values
    index, sums = np.arange(len(values)), np.concatenate([[0.0], np.cumsum(values)])
    begin = np.maximum(index - window // 2, 0)
    end = np.minimum(index + window // 2 + 1, len(values))
    return (sums[end] - sums[begin]) / (end - begin)


def window_of(longest: int) -> int:
    """How many values are averaged where the longest line has so many: a thirtieth, odd."""
    return 1 + 2 * (longest // 60)
