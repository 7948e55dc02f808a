"""What a run has left in its folder, read for all that people look at."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.errors import UserError
from ba_dist.run.names import common_name
from ba_dist.run.run_dir import entry_of

Floats = npt.NDArray[np.float64]
Event = Mapping[str, Any]

# What says neither what is computed nor how fast: two runs may differ in it and be the same.
_ASIDE = {
    *("run_dir", "resume", "trace", "logger", "log_every", "keep_checkpoints", "keep_best"),
    *("checkpoint_every", "checkpoint_minutes", "stall_warning", "stall_timeout", "data_dir"),
}


@dataclass(frozen=True)
class Judged:
    """The number that says how good a network is.

    Args:
        by: its name in events and summary, `val_top1`.
        less_is_better: of a loss or a perplexity.
        headline: the number in words.
        unit: what speed is counted in.
    """

    by: str
    less_is_better: bool
    headline: str
    unit: str


@dataclass(frozen=True)
class History:
    """A run, as its folder tells it.

    Args:
        folder: the run directory, as it was given.
        facts: of config.json; empty where it cannot be read.
        summary: of summary.json; empty until the run has come to its end.
        events: of metrics.jsonl, in order.
    """

    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Event] = ()

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.resolve().name

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration as config.json has it."""
        found = self.facts.get("config", {})
        return found if isinstance(found, dict) else {}

    @property
    def steps_per_epoch(self) -> int:
        """0 where the run does not say."""
        return int(self.facts.get("steps_per_epoch", 0))

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.config.get("run", {}).get("seed", 0))

    @property
    def multiplicity(self) -> int:
        """M; 0 where the run does not say."""
        return int(self.config.get("batch", {}).get("multiplicity", 0))

    @property
    def steps(self) -> int:
        """That are written down; a straggler may be named between two of them."""
        return max((e["step"] for e in self.events if e["event"] != "straggler"), default=0)

    @property
    def judged(self) -> Judged:
        """How good it is said to be by; of earlier versions, the first number beside the loss."""
        told = self.facts.get("judged")
        if isinstance(told, dict):
            return Judged(told["by"], told["less_is_better"], told["headline"], told["unit"])
        names = [key for event in self.events for key in event if key.startswith("val_")]
        by = next((name for name in names if name != "val_loss"), "val_loss")
        less = by in ("val_loss", "val_perplexity")
        words = f"validation {common_name(by)}"
        speeds = (key for event in self.events for key in event if key.endswith("_per_second"))
        return Judged(
            by, less, words, next(speeds, "images_per_second").removesuffix("_per_second")
        )

    def settings(self, aside: bool = False) -> dict[str, Any]:
        """Name → value of all settings, `recipe`, `baseline` and `ranks` first.

        Args:
            aside: whether those are among them that make no difference.
        """
        config = self.config
        made = {"recipe": config.get("recipe", "?"), "baseline": config.get("baseline", "none")}
        parts = [part for part in config.values() if isinstance(part, dict)]
        values = {name: value for part in parts for name, value in part.items()}
        ranks = self.facts.get("layout", {}).get("world_size")
        every = {**made, **({} if ranks is None else {"ranks": ranks}), **values}
        return {name: v for name, v in every.items() if aside or name not in _ASIDE}

    def of(self, kind: str) -> Iterator[Event]:
        """Its events of a kind: step, epoch, straggler."""
        return (event for event in self.events if event["event"] == kind)

    def series(self, kind: str, name: str) -> tuple[Floats, Floats]:
        """(steps, values) of a number; null, which was not finite, is left out."""
        points = [(e["step"], e[name]) for e in self.of(kind) if e.get(name) is not None]
        steps, values = np.array(points, float).reshape(-1, 2).T
        return steps, values

    @property
    def final(self) -> float | None:
        """What it is judged by, as the last evaluation found it; None before the first one.

        NaN where it was not finite.
        """
        found = [event[self.judged.by] for event in self.of("epoch") if self.judged.by in event]
        if not found:
            return None
        return math.nan if found[-1] is None else float(found[-1])


def read(folder: Path) -> History:
    """Reads a run directory; what is missing beside metrics.jsonl is missing in what is shown.

    Raises:
        UserError: when the folder has no metrics.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{folder} is not a run directory: it has no metrics.jsonl")
    with path.open(encoding="utf-8", errors="replace") as lines:
        entries = [entry for line in lines if (entry := entry_of(line))]
    events = [entry for entry in entries if {"event", "step"} <= entry.keys()]
    return History(folder, _read(folder / "config.json"), _read(folder / "summary.json"), events)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def differing(histories: Sequence[History]) -> list[str]:
    """Names of the settings in which runs differ, in their order."""
    every = [history.settings() for history in histories]
    names = dict.fromkeys(name for settings in every for name in settings)
    return [name for name in names if len({text(s.get(name)) for s in every}) > 1]


def text(value: Any) -> str:
    """The value of a setting as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def printable(words: str) -> str:
    """Words without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in words)
