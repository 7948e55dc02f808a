"""The training loop, from the configuration to the summary, read from top to bottom."""

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ba_dist import checkpoint, record, run_dir, runtime
from ba_dist.comm import Comm, start
from ba_dist.config import (
    Config,
    computed_part,
    differences,
    layout_of,
    plan_steps,
)
from ba_dist.data.catalog import Dataset, open_dataset
from ba_dist.errors import CheckpointError, DataError, UserError
from ba_dist.recipes.quickstart import on_digits
from ba_dist.report import epoch_line, opening
from ba_dist.schedules import learning_rate
from ba_dist.signals import stop_requests
from ba_dist.topology import Layout

# Tells the job script or the scheduler: stopped on request, run me again.
RUN_AGAIN = 75


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        run_dir: the run's folder.
        summary: as in summary.json; None when it was stopped on request.
        step: steps that are done.
    """

    run_dir: Path
    summary: dict[str, Any] | None
    step: int


@dataclass
class Position:
    """Where a run is: steps done, updates left out; sums and corrupt records of this epoch."""

    step: int = 0
    skipped: int = 0
    epoch_loss: float = 0.0
    epoch_accuracy: float = 0.0
    seconds: float = 0.0
    corrupt: int = 0
    val: dict[str, float] = dataclasses.field(default_factory=dict)


def train(config: Config) -> Outcome:
    """Trains a configuration on all ranks that were started; collective over the world."""
    # --- the world: ranks, layout, run directory --------------------------------------------------
    comm = start()
    layout = layout_of(config, comm.world_size)
    with ExitStack() as stack:
        folder = _open_run_dir(config, comm, stack)
        job = Job(config, layout, comm, folder, stack)
        job.resume()
        if job.finished():
            return Outcome(folder, run_dir.read_json(folder / "summary.json"), job.position.step)
        job.describe()
        # --- the steps ----------------------------------------------------------------------------
        stopped = job.run()
        # --- the end ------------------------------------------------------------------------------
        if stopped:
            return Outcome(folder, None, job.position.step)
        return Outcome(folder, job.summarise(), job.position.step)


class Job:
    """Everything that a training run holds on one rank."""

    def __init__(self, config: Config, layout: Layout, comm: Comm, folder: Path, stack: ExitStack):
        self.config, self.layout, self.comm, self.folder = config, layout, comm, folder
        comm.together(lambda: runtime.prepare(comm.node.rank, comm.node.size, config.run.seed))
        comm.together(comm.start_horovod)
        if config.placement.microbatch is None:
            size = layout.microbatch_within(runtime.default_microbatch())
            self.layout = layout = dataclasses.replace(layout, microbatch=size)
        self.dataset = self._open_data()
        config = self.config
        self.steps_per_epoch, self.total_steps = plan_steps(config, len(self.dataset.train))
        self.position = Position()
        self._stack = stack
        self._build()
        self.checkpoint_every = config.run.checkpoint_every or self.steps_per_epoch

    def _open_data(self) -> Dataset:
        """The samples; where nothing can be reached, `quickstart` takes what is in a wheel."""
        try:
            return open_dataset(self.config.data, self.comm)
        except DataError as error:
            if self.config.recipe != "quickstart" or self.config.data.data_dir:
                raise
            if self.comm.rank == 0:
                print(f"{error}\nTraining on scikit-learn's digits instead.", flush=True)
            self.config = on_digits(self.config)
            return open_dataset(self.config.data, self.comm)

    def _build(self) -> None:
        """Network, update rule and evaluation, the same on every rank."""
        from ba_dist import models, step
        from ba_dist.data.augment import Augmentation
        from ba_dist.data.pipeline import io_threads
        from ba_dist.data.sources import workers
        from ba_dist.evaluate import Evaluator
        from ba_dist.metrics import StepClock
        from ba_dist.optim.sgd import SGD

        config = self.config
        precision = step.set_precision(config.run.precision)
        self.augmentation = Augmentation(config.augment, self.dataset.info, config.data.image_size)
        self.model = models.of_config(
            config,
            self.augmentation.image_shape,
            self.dataset.info.classes,
            self.layout.ghost_batch,
        )
        rule = config.optimizer
        optimizer = SGD(
            self.model.trainable_variables, rule.momentum, rule.weight_decay, rule.nesterov
        )
        self.step = step.TrainStep(self.model, optimizer, self.layout, self.comm, precision)
        pool = self._stack.enter_context(workers(io_threads(config, self.dataset.validation)))
        self.evaluate = Evaluator(
            self.model, self.dataset.validation, self.augmentation, self.comm, pool,
            config.data.on_corrupt == "skip",
        )  # fmt: skip
        self.rate = learning_rate(rule.lr, rule.lr_shape, rule.warmup_epochs, self.steps_per_epoch)
        self.clock = StepClock(self.layout.batch_size * self.layout.multiplicity)

    # --- resume ---------------------------------------------------------------------------------

    def resume(self) -> None:
        """Goes on from the newest good checkpoint of the run directory, if there is one."""
        found: checkpoint.Checkpoint | None = None
        complaints: list[str] = []
        if self.comm.rank == 0:
            found, complaints = checkpoint.newest(checkpoint.folder_of(self.folder))
            for complaint in complaints:
                print(f"warning: {complaint}; trying the one before", flush=True)
        if self.comm.world.share_object(found is None and bool(complaints)):
            raise _agreed(
                CheckpointError(
                    f"no checkpoint in {checkpoint.folder_of(self.folder)} can be read;"
                    " --no-resume starts from zero and keeps them aside"
                )
            )
        found = checkpoint.share(found, self.comm)
        if found is not None:
            self.comm.together(lambda: self._check_same(found.facts["config"]))
            self.comm.together(lambda: checkpoint.restore(found.arrays, self.step.state()))
            self.position = Position(**found.facts["position"])
        if self.comm.rank == 0:
            run_dir.cut_back(self.folder / "metrics.jsonl", self.position.step)
            for path in (self.folder / "trace").glob("rank-*.jsonl"):
                run_dir.cut_back(path, self.position.step)
        self.comm.world.barrier()

    def finished(self) -> bool:
        """Whether an earlier job has done all steps and written the summary."""
        done = self.position.step >= self.total_steps
        there = self.comm.rank == 0 and (self.folder / "summary.json").exists()
        return bool(done and self.comm.world.share_object(there))

    def _check_same(self, saved: dict[str, Any]) -> None:
        if changed := differences(saved, computed_part(self.config, self.layout)):
            raise CheckpointError(
                f"the run directory holds a run with other settings: {'; '.join(changed)}."
                " Use the same settings, another --run-dir, or --no-resume to start anew"
            )

    def save(self) -> None:
        """Writes a checkpoint on rank 0; the state is the same on all ranks."""
        if self.comm.rank != 0:
            return
        facts = {
            "config": computed_part(self.config, self.layout),
            "position": dataclasses.asdict(self.position),
        }
        arrays = {name: variable.numpy() for name, variable in self.step.state().items()}
        state = checkpoint.Checkpoint(self.position.step, arrays, facts)
        folder = checkpoint.folder_of(self.folder)
        try:
            checkpoint.save(folder, state, self.config.run.keep_checkpoints)
        except OSError as error:
            # The one before is still there; losing it all to a full disk would be worse.
            self.progress.say(f"warning: no checkpoint of step {state.step}: {error}; going on")

    # --- the steps --------------------------------------------------------------------------------

    def run(self) -> bool:
        """Trains to the last step; returns True when it was asked to stop before."""
        from ba_dist.data.pipeline import open_pipeline
        from ba_dist.metrics import Metrics, Progress

        first = self.comm.rank == 0
        self.metrics = Metrics(self.folder) if first else None
        self.progress = Progress(first, self.position.step, self.total_steps)
        self._stack.callback(self.progress.close)
        if self.metrics:
            self._stack.callback(self.metrics.close)
        rank, layout = self.comm.rank, self.layout
        path = record.trace_path(self.folder, rank) if self.config.run.trace else None
        tracing = record.tracer(path, layout.group(rank), layout.lane(rank))
        self.input_wait = 0.0
        pipeline = open_pipeline(
            self.config, layout, self.comm, self.dataset.train, self.augmentation,
            self.position.step, self.total_steps,
        )  # fmt: skip
        with pipeline as batches, tracing as trace, stop_requests() as stop:
            for batch in _timed(batches, self):
                trace(batch)
                outcome = self._train_on(batch, stop.wanted)
                if outcome["stop"] and self.position.step < self.total_steps:
                    stop.agreed = True
                    self.save()
                    return True
        return False

    def _train_on(self, batch: dict[str, Any], stop: bool) -> dict[str, Any]:
        """One step and everything that is due after it."""
        begun = time.monotonic()
        rate = self.rate(self.position.step) * self.config.optimizer.lr_scale
        reports = len(batch["replaced"]) if self.layout.lane(self.comm.rank) == 0 else 0
        outcome = self.step(batch["images"], batch["labels"], rate, stop, reports)
        if not outcome["finite"] and not self.step.precision.scaled:
            raise _agreed(self._not_finite())
        self.position.step += 1
        self._count_corrupt(outcome["corrupt"])
        self.position.skipped += not outcome["finite"]
        self.position.epoch_loss += outcome["loss"]
        self.position.epoch_accuracy += outcome["accuracy"]
        seconds = time.monotonic() - begun + self.input_wait
        self.position.seconds += seconds
        self.clock.step(seconds, self.input_wait)
        done = self.position.step
        last = done == self.total_steps
        if done % self.config.run.log_every == 0 or last:
            self._log_step(outcome, rate)
        if done % self.steps_per_epoch == 0 or last:
            self._end_epoch(last)
        if done % self.checkpoint_every == 0 or last:
            self.save()
        return outcome

    def _log_step(self, outcome: dict[str, Any], rate: float) -> None:
        done, speed = self.position.step, self.clock.recent()
        self.progress.step(done, outcome["loss"], outcome["accuracy"], speed["images_per_second"])
        if self.metrics:
            self.metrics.write(
                "step",
                done,
                epoch=(done - 1) // self.steps_per_epoch,
                loss=outcome["loss"],
                accuracy=outcome["accuracy"],
                grad_norm=outcome["grad_norm"],
                lr=rate,
                **speed,
                **self._counts(),
            )

    def _end_epoch(self, last: bool) -> None:
        done = self.position.step
        epoch = (done - 1) // self.steps_per_epoch
        steps = done - epoch * self.steps_per_epoch
        values: dict[str, Any] = {
            "epoch": epoch,
            "loss": self.position.epoch_loss / steps,
            "accuracy": self.position.epoch_accuracy / steps,
        }
        if steps == self.steps_per_epoch:
            self.position.corrupt = 0
            self.position.epoch_loss = self.position.epoch_accuracy = 0.0
        if last or (epoch + 1) % self.config.run.eval_every == 0:
            self.position.val = self.evaluate()
            values |= self.position.val
        self.progress.say(epoch_line(values, self.config.run.epochs))
        if self.metrics:
            self.metrics.write("epoch", done, **values, **self._counts())

    def _count_corrupt(self, found: int) -> None:
        """Ends the run, on all ranks after the same step, when an epoch has met too many."""
        self.position.corrupt += found
        budget = self.config.data.corrupt_budget
        if self.position.corrupt > budget:
            raise _agreed(
                DataError(
                    f"{self.position.corrupt} corrupt records in this epoch, --corrupt-budget is"
                    f" {budget}; `ba-dist data verify` lists them"
                )
            )

    def _not_finite(self) -> UserError:
        return UserError(
            f"the loss or gradient of step {self.position.step} is not finite; lower --lr-scale or"
            f" use another --precision. The last checkpoint in"
            f" {checkpoint.folder_of(self.folder)} is from before it"
        )

    def _counts(self) -> dict[str, int]:
        """Distinct samples, instances and updates, counted apart."""
        samples = self.position.step * self.layout.batch_size
        return {
            "updates": self.position.step - self.position.skipped,
            "samples": samples,
            "instances": samples * self.layout.multiplicity,
        }

    # --- what is written down ---------------------------------------------------------------------

    def describe(self) -> None:
        """Writes config.json, and says once what is about to run."""
        hosts = self.comm.world.gather_objects(self.comm.host)
        if self.comm.rank != 0:
            return
        path = self.folder / "config.json"
        layouts = record.add_layout(path, self.position.step, self.layout)
        facts = record.facts(self.config, self.dataset, layouts, self.steps_per_epoch, hosts)
        run_dir.write_whole(path, json.dumps(facts, indent=2) + "\n")
        for line in opening(self.config, self.layout, self.dataset, self.total_steps):
            print(line, flush=True)
        if self.position.step:
            print(f"going on at step {self.position.step} of {self.total_steps}", flush=True)

    def summarise(self) -> dict[str, Any]:
        """Writes summary.json on rank 0 and returns it everywhere; collective over the world."""
        counters = self.dataset.train.counters.as_dict()
        *totals, waited = self.comm.sum([*counters.values(), self.clock.waited()])
        summary = record.summary(
            self.config,
            self.layout,
            self.position.step,
            self.steps_per_epoch,
            skipped_updates=self.position.skipped,
            **self.position.val,
            images_per_second=self.clock.images_per_second(),
            seconds=self.position.seconds,
            input={
                "mode": self.config.placement.io,
                "wait_share": waited / self.layout.world_size,
                **{name: int(n) for name, n in zip(counters, totals, strict=True)},
            },
        )
        if self.comm.rank == 0:
            run_dir.write_whole(self.folder / "summary.json", json.dumps(summary, indent=2) + "\n")
        return summary


def _open_run_dir(config: Config, comm: Comm, stack: ExitStack) -> Path:
    """Agrees on the run directory and holds it; rank 0 alone touches it before the others do."""
    folder = Path(config.run.run_dir or f"runs/{config.recipe}-{datetime.now():%Y%m%d-%H%M%S}")
    folder = comm.world.share_object(folder.absolute())

    def claim() -> None:
        stack.callback(run_dir.claim(folder).release)
        if not config.run.resume:
            run_dir.set_aside(folder)

    comm.together(claim if comm.rank == 0 else lambda: None)
    return folder


def _timed(batches: Any, job: Job) -> Iterator[dict[str, Any]]:
    """The batches; the seconds that each was waited for go to the job."""
    source = iter(batches)
    while True:
        begun = time.monotonic()
        batch = next(source, None)
        if batch is None:
            return
        job.input_wait = time.monotonic() - begun
        yield batch


def _agreed(error: UserError) -> UserError:
    """Marks an error that all ranks raise at the same place."""
    error.agreed = True
    return error
