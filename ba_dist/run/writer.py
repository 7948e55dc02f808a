"""Everything that a run writes while it trains: trace, progress, metrics, checkpoints."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ba_dist.config import Config
from ba_dist.data.batch import Batch
from ba_dist.data.copies import first_copies
from ba_dist.data.sources import ImageInfo, Source
from ba_dist.errors import UserError, reason
from ba_dist.rules.layout import Layout
from ba_dist.rules.plan import Plan
from ba_dist.run import checkpoint, copies_page, loggers, record, report, trace
from ba_dist.run.checkpoint import Arrays
from ba_dist.run.clock import StepClock
from ba_dist.run.metrics import Metrics
from ba_dist.run.position import Position
from ba_dist.run.progress import Progress
from ba_dist.run.saving import Saver
from ba_dist.tasks import Task

if TYPE_CHECKING:  # a step loads TensorFlow
    from ba_dist.step import StepResult


class Writer:
    """The trace is written by every rank, all else by rank 0; other ranks may call it all the same.

    Args:
        config: of the run.
        layout: of the ranks.
        plan: of the steps.
        task: says what is counted and shown.
        folder: the run directory.
        clock: counts the time of the steps.
        trace: of this rank.
        progress: shows something on rank 0 only.
        metrics: None but on rank 0.
        saver: None but on rank 0.
    """

    def __init__(
        self,
        config: Config,
        layout: Layout,
        plan: Plan,
        task: Task,
        *,
        folder: Path,
        clock: StepClock,
        trace: trace.Trace,
        progress: Progress,
        metrics: Metrics | None,
        saver: Saver | None,
    ):
        self._config, self._layout, self._plan, self._task = config, layout, plan, task
        self._folder = folder
        self.clock, self.trace, self._progress = clock, trace, progress
        self._metrics, self._saver = metrics, saver
        self._again: tuple[Any, ...] = ()  # what was last given to the saver

    def start(self, source: Source, done: int) -> None:
        """Notes the values of the run and, at its very start, the copies of a few samples.

        Args:
            source: the training samples; what is read for the pictures is not counted.
            done: steps that an earlier job has done.
        """
        if self._metrics is None:
            return
        settings = record.settings(self._config, self._layout)
        self._metrics.start(settings, self._task.judged_by)
        if done or not isinstance(source.info, ImageInfo):
            return
        before = source.counters.as_dict()
        try:
            samples = first_copies(self._config, self._task, source)
        except UserError as error:  # a corrupt record: training has its own rule for these
            self.say(f"no images for TensorBoard: {error}")
        else:
            strips = {
                f"copies/sample {s.sample}, {s.label}": np.concatenate(s.copies, 1) for s in samples
            }
            self._metrics.board.images(strips)
            try:
                copies_page.write(self._folder / copies_page.NAME, samples)
            except (OSError, ValueError) as error:  # a run is worth more than its pictures
                self.say(f"warning: no {copies_page.NAME}: {reason(error)}")
        after = source.counters.as_dict()
        source.counters.add(**{name: before[name] - after[name] for name in after})

    def end(self, summary: Mapping[str, Any]) -> None:
        """The run has come to its end, with these results."""
        if self._metrics:
            self._metrics.end(summary)

    @property
    def checkpoint_seconds(self) -> float:
        """That training has waited for checkpoints."""
        return self._saver.seconds if self._saver else 0.0

    def say(self, text: str) -> None:
        """Shows a line beside the bar, on rank 0."""
        self._progress.say(text)

    def batch(self, batch: Batch) -> None:
        """A batch that is about to be trained on."""
        self.trace.step(batch)

    def weights(self, digest: str | None, done: int) -> None:
        """The digest of the replicas after so many steps, where it was compared."""
        if digest is not None:
            self.trace.weights(done, digest)

    def straggler(self, text: str, facts: Mapping[str, Any], done: int) -> None:
        """A rank that others wait for."""
        self.say(text)
        if self._metrics:
            self._metrics.write("straggler", done, **facts)

    def step(self, position: Position, result: "StepResult", hyper: Mapping[str, float]) -> None:
        """A step that is done, where one is to be logged."""
        done = position.step
        if done % self._config.run.log_every and not self._plan.is_over(done):
            return
        speed = self.clock.recent()
        values = {"loss": result.loss, **result.metrics}
        per_second = speed[f"{self._task.unit}_per_second"]
        self._progress.step(done, report.step_parts(values, self._task, per_second))
        if self._metrics:
            self._metrics.write(
                "step",
                done,
                epoch=self._plan.epoch(done),
                **values,
                grad_norm=result.grad_norm,
                lr=hyper["learning_rate"],
                **speed,
                **position.counts(self._layout),
                seconds=position.seconds,
            )

    def epoch(self, position: Position, values: Mapping[str, Any]) -> None:
        """An epoch that has ended, evaluated where that was due."""
        self.say(report.epoch_line(values, self._task, self._config.run.epochs))
        if self._metrics:
            counts = {**position.counts(self._layout), "seconds": position.seconds}
            self._metrics.write("epoch", position.step, **values, **counts)

    def wants_checkpoint(self, done: int) -> bool:
        """Whether rank 0 wishes that the state after so many steps is saved."""
        return self._saver is not None and self._saver.due(done)

    def checkpoint(
        self, position: Position, state: Mapping[str, Any], rows: Arrays, facts: dict[str, Any]
    ) -> None:
        """Begins to write a checkpoint.

        Args:
            position: of the run.
            state: name → variable of what all ranks hold alike.
            rows: name → array [M·B, …] of what differs from instance to instance.
            facts: what makes it this run.
        """
        if self._saver:
            facts = {**facts, "position": dataclasses.asdict(position)}
            self._again = (position.step, dict(state), rows, facts)
            self._saver.save(*self._again)

    def best_checkpoint(
        self, position: Position, state: Mapping[str, Any], rows: Arrays, facts: dict[str, Any]
    ) -> None:
        """Begins to write the best checkpoint; arguments as of `checkpoint`."""
        if self._saver:
            facts = {**facts, "position": dataclasses.asdict(position)}
            self._saver.save(position.step, state, rows, facts, best=True)

    def finish(self) -> None:
        """The last checkpoint is on disk, or was tried twice."""
        if self._saver:
            self._saver.finish()
            if self._saver.lost:
                self._saver.save(*self._again)
                self._saver.finish()


@contextmanager
def open_writer(
    folder: Path,
    config: Config,
    task: Task,
    *,
    layout: Layout,
    rank: int,
    plan: Plan,
    done: int,
) -> Iterator[Writer]:
    """What writes, for the length of a block; `done` steps were done before.

    Args:
        folder: the run directory.
        config: of the run.
        task: of the run.
        layout: of the ranks.
        rank: this one.
        plan: of the steps.
        done: steps that an earlier job has done.
    """
    run, metrics, saver = config.run, None, None
    with ExitStack() as stack:
        path = trace.path_of(folder, rank) if run.trace else None
        lines = trace.Trace(path, task, layout.group(rank), layout.lane(rank))
        stack.callback(lines.close)
        progress = Progress(rank == 0, done, plan.total_steps)
        stack.callback(progress.close)
        if rank == 0:
            metrics = Metrics(folder, _logger(run.logger, folder, progress))
            stack.callback(metrics.close)
            saver = Saver(
                checkpoint.folder_of(folder),
                keep=run.keep_checkpoints,
                every=run.checkpoint_every or plan.steps_per_epoch,
                minutes=run.checkpoint_minutes,
                say=progress.say,
            )
            stack.callback(saver.close)
        yield Writer(
            config,
            layout,
            plan,
            task,
            folder=folder,
            clock=StepClock(task.unit),
            trace=lines,
            progress=progress,
            metrics=metrics,
            saver=saver,
        )


def _logger(name: str | None, folder: Path, progress: Progress) -> loggers.Guarded | None:
    if name is None:
        return None
    return loggers.Guarded(name, lambda: loggers.find(name)(folder), progress.say)
