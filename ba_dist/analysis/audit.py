"""Checks the invariants of batch augmentation from the trace of a run.

Everything is recomputed from B, M, the seed and the layout in config.json, and pixels from the data
itself. So a trace that is consistent in itself, but does not fit them, is found as well. The trace
is read once, a line of each rank at a time:

    rules.py       ids, copies, keys, ghost batches, groups; every sample once an epoch
    alike.py       copies of a sample whose augmentations differ have different pixels
    rendering.py   ghost batches spread over the run are rendered again
    weights.py     all ranks had the same weights
"""

import dataclasses
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ba_dist import models, tasks
from ba_dist.analysis.alike import CopiesChecker
from ba_dist.analysis.rendering import Renderer, source_of
from ba_dist.analysis.rules import Checker, Rules
from ba_dist.analysis.trace import last_step, moments, traces
from ba_dist.analysis.weights import WeightsChecker
from ba_dist.config import COMPUTATION, Config
from ba_dist.data.catalog import digest
from ba_dist.data.order import order_of
from ba_dist.data.sources import DatasetInfo
from ba_dist.errors import ConfigError, UserError
from ba_dist.rules.layout import Layout
from ba_dist.run.record import load_config
from ba_dist.run.run_dir import read_json

# Default number of ghost batches that are rendered again: about 2,000 instances.
RENDERED = 64
# The audit ends after so many problems; a broken run may have one at every step.
MOST_PROBLEMS = 1000


def audit(
    run_dir: Path, render: int = RENDERED, say: Callable[[str], None] = lambda text: None
) -> tuple[int, list[str]]:
    """Audits a run that was made with `--trace`.

    Args:
        run_dir: the run directory.
        render: the largest number of ghost batches to render again; 0 leaves pixels unchecked.
        say: is called with notes that are not problems.

    Returns:
        The number of steps that were checked, and a line for every broken rule, with step and rank.

    Raises:
        UserError: when the folder has no trace, or the data cannot be opened here.
    """
    run = _Run(run_dir, render, say)
    problems = list(islice(run.problems(), MOST_PROBLEMS))
    if len(problems) == MOST_PROBLEMS:
        problems.append(f"the audit ended after {MOST_PROBLEMS} problems")
    return run.steps, problems


class _Run:
    """One audit."""

    def __init__(self, run_dir: Path, render: int, say: Callable[[str], None]):
        self._run_dir, self._say = run_dir, say
        path = run_dir / "config.json"
        config, facts = _load(path)
        name = models.network(config.model.model).task
        info = _info(path, name, facts)
        self._rules = _rules(path, config, facts, info)
        self._paths = traces(run_dir, self._rules.ranks)
        task = tasks.build(name, config, info)
        self._ids = Checker(self._rules)
        self._copies = CopiesChecker(self._rules, task)
        self._weights = WeightsChecker(self._rules)
        self._renderer: Renderer | None = None
        self._other_data: list[str] = []
        self.steps = 0
        if render:
            _check_pixels(path, facts)
            source = source_of(config.data)
            here, there = digest(source), facts["data"].get("train_digest")
            if here != there:
                self._other_data = [
                    f"the data opened here is not that of the run: its digest is {here}, the run's"
                    f" {there}; no pixels were compared"
                ]
            else:
                steps = last_step(self._paths[0]) + 1
                self._renderer = Renderer(self._rules, task, source, steps=steps, wanted=render)

    def problems(self) -> Iterator[str]:
        """Every broken rule; `steps` counts the steps that were checked so far."""
        yield from self._other_data
        for moment in moments(self._paths, self._rules.world_size):
            step, entries = moment.step, moment.entries
            yield from moment.problems
            yield from self._weights.check(step, moment.weights)
            if any(entries):
                found, wanted = self._ids.check(step, entries)
                yield from found
                yield from self._copies.check(step, entries, wanted)
                if self._renderer:
                    yield from self._renderer.check(step, entries, wanted)
                self.steps = step + 1
            elif moment.next is not None:
                yield _missing(step, moment.next)
        yield from self._finish()

    def _finish(self) -> Iterator[str]:
        steps = 0
        if (self._run_dir / "summary.json").exists():
            steps = read_json(self._run_dir / "summary.json").get("steps", 0)
        if self.steps == steps == 0:
            yield "the trace holds no step"
            return
        if self.steps < steps:
            yield _missing(self.steps, steps)
            self.steps = steps
        yield from self._weights.finish(self.steps)
        if self._copies.off:
            self._say("no augmentation is on: the copies of a sample are all the same")
        if self._renderer:
            self._say(f"{self._renderer.rendered} instances were rendered anew from data and key")


def _missing(first: int, end: int) -> str:
    steps = f"step {first}" if end == first + 1 else f"steps {first} to {end - 1}"
    return f"{steps}, all ranks: not in the trace"


def _load(path: Path) -> tuple[Config, dict[str, Any]]:
    try:
        return load_config(path.parent)
    except ConfigError as error:
        raise UserError(f"{path} is not that of a run: {error}") from None


def _check_pixels(path: Path, facts: dict[str, Any]) -> None:
    """Refuses to compare the pixels of a version that made other ones."""
    if (number := facts.get("computation", 1)) != COMPUTATION:
        raise UserError(
            f"{path} is of a version of ba_dist whose pixels may differ (computation {number}, here"
            f" {COMPUTATION}); audit it by that version, or use --no-render, which checks"
            " everything but the pixels"
        )


def _rules(path: Path, config: Config, facts: dict[str, Any], info: DatasetInfo) -> Rules:
    try:
        jobs = facts.get("layouts") or [[0, facts["layout"]]]
        names = [field.name for field in dataclasses.fields(Layout)]
        layouts = [(first, Layout(**{name: at[name] for name in names})) for first, at in jobs]
        samples, steps = facts["samples"], facts["steps_per_epoch"]
        return Rules(layouts, config.run.seed, samples, steps, order_of(config, info))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not that of a run: {error!r}") from None


def _info(path: Path, task: str, facts: dict[str, Any]) -> DatasetInfo:
    try:
        return tasks.read_info(task, facts["data"]["info"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not describe the data of a run: {error!r}") from None
