"""The training loop, from the configuration to the summary, read from top to bottom."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ba_dist import runtime
from ba_dist.comm import Comm, start
from ba_dist.config import COMPUTATION, Config, computed_part, layout_of, plan_steps
from ba_dist.data.catalog import Dataset, digest, open_dataset
from ba_dist.errors import DataError, DataUnavailable, agreed
from ba_dist.health import devices, inject, nonfinite, replicas
from ba_dist.health.signals import stop_requests
from ba_dist.health.stragglers import StragglerWatch, slow_links
from ba_dist.health.watchdog import Watchdog
from ba_dist.recipes.quickstart import on_digits
from ba_dist.rules.layout import Layout
from ba_dist.run import checkpoint, record, run_dir, saving
from ba_dist.run.position import Position
from ba_dist.run.report import epoch_line, opening
from ba_dist.storage.cache import data_dir

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


def train(config: Config, faults: list[inject.Fault] | None = None) -> Outcome:
    """Trains a configuration on all ranks that were started; collective over the world.

    Args:
        config: with everything filled in.
        faults: to bring about on purpose.

    Returns:
        How it ended.

    Raises:
        UserError: with one message for a person, on all ranks or (not `agreed`) on this one.
    """
    # --- the world: ranks, layout, run directory --------------------------------------------------
    comm = start()
    layout = layout_of(config, comm.world_size)
    with ExitStack() as stack:
        folder = saving.open_run_dir(config, comm, stack)
        job = Job(config, layout, comm, folder, stack, faults or [])
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

    def __init__(
        self, config: Config, layout: Layout, comm: Comm, folder: Path, stack: ExitStack,
        faults: list[inject.Fault],
    ):  # fmt: skip
        self.config, self.layout, self.comm, self.folder = config, layout, comm, folder
        self.injector = inject.Injector(faults, comm.rank)
        comm.together(lambda: runtime.prepare(comm.node.rank, comm.node.size))
        devices.check(comm)
        comm.together(comm.start_horovod)
        if config.placement.microbatch is None:
            size = layout.microbatch_within(runtime.default_microbatch())
            self.layout = layout = dataclasses.replace(layout, microbatch=size)
        self.dataset = self._open_data()
        config = self.config
        self.steps_per_epoch, self.total_steps = plan_steps(config, len(self.dataset.train))
        self.facts = self._facts()
        self.position = Position()
        self._agreed = self._saved = -1
        self._stack = stack
        self._epoch_event: dict[str, Any] | None = None
        self._build()

    def _open_data(self) -> Dataset:
        """The samples; where nothing can be reached, `quickstart` takes what is in a wheel."""
        try:
            return open_dataset(self.config.data, self.comm)
        except DataUnavailable as error:
            if self.config.recipe != "quickstart" or data_dir(self.config.data.data_dir):
                raise
            if self.comm.rank == 0:
                print(f"{error}\nTraining on scikit-learn's digits instead.", flush=True)
            self.config = on_digits(self.config)
            return open_dataset(self.config.data, self.comm)

    def _build(self) -> None:
        """Network, step and evaluation, the same on every rank."""
        from ba_dist import experiment
        from ba_dist.run.metrics import StepClock

        config, comm, layout = self.config, self.comm, self.layout
        built = experiment.network(config, self.dataset.info, layout.ghost_batch)
        self.model, self.augmentation = built.model, built.augmentation
        self.step = experiment.train_step(config, built, layout, comm)
        self.evaluate = self._stack.enter_context(
            experiment.evaluator(config, built, self.dataset.validation, comm)
        )
        self.rate = experiment.learning_rate(config, self.steps_per_epoch)
        self.clock = StepClock(layout.batch_size * layout.multiplicity)

    # --- resume ---------------------------------------------------------------------------------

    def resume(self) -> None:
        """Goes on from the newest good checkpoint of the run directory, if there is one."""
        found = saving.find(self.folder, self.comm)
        if found is not None:
            self.comm.together(lambda: saving.check_same_run(found.facts, self.facts))
            self.comm.together(lambda: checkpoint.restore(found.arrays, self.step.state()))
            self.position = Position(**found.facts["position"])
        replicas.spread(self.step.state(), self.comm)
        rank, done = self.comm.rank, self.position.step
        if rank == 0:
            run_dir.cut_back(self.folder / "metrics.jsonl", done)
            self._epoch_event = run_dir.epoch_event(self.folder / "metrics.jsonl", done)
        self._epoch_event = self.comm.world.share_object(self._epoch_event)
        record.cut_back_traces(self.folder, done, rank, self.comm.world_size)
        self.comm.world.barrier()

    def finished(self) -> bool:
        """Whether an earlier job has done all steps and written the summary."""
        # The summary may be that of an earlier job, which was told to do fewer steps.
        path, done = self.folder / "summary.json", self.position.step
        there = self.comm.rank == 0 and path.exists() and run_dir.read_json(path)["steps"] == done
        return bool(done >= self.total_steps and self.comm.world.share_object(there))

    def _facts(self) -> dict[str, Any]:
        """What makes it this run, as its checkpoints hold it."""
        data = {"samples": len(self.dataset.train), "digest": digest(self.dataset.train)}
        computed = computed_part(self.config, self.layout)
        return {"computation": COMPUTATION, "config": computed, "data": data}

    def save(self) -> None:
        """Begins to write a checkpoint on rank 0; collective over the world.

        Not before all ranks have the same state: one of replicas that differ would be lost work.
        """
        done = self.position.step
        if done == self._saved:
            return
        self.watchdog.beat("saving", done)
        self._agree_on_weights()
        self._saved = done
        self._write()

    def _write(self) -> None:
        if self.saver:
            facts = {**self.facts, "position": dataclasses.asdict(self.position)}
            self.saver.save(self.position.step, self.step.state(), facts)

    def _agree_on_weights(self) -> None:
        """Ends the run where the ranks' weights differ; collective over the world."""
        done = self.position.step
        if done != self._agreed:
            self.trace.weights(done, replicas.agree(self.step.state(), self.comm, done))
            self._agreed = done

    # --- the steps --------------------------------------------------------------------------------

    def run(self) -> bool:
        """Trains to the end; returns True when it was asked to stop before."""
        from ba_dist.data.pipeline import open_pipeline

        rank, layout = self.comm.rank, self.layout
        self._open_outputs()
        path = record.trace_path(self.folder, rank) if self.config.run.trace else None
        self.trace = record.Trace(path, layout.group(rank), layout.lane(rank))
        self._stack.callback(self.trace.close)
        pipeline = open_pipeline(
            self.config, layout, self.comm, self.injector.source(self.dataset.train),
            self.augmentation, self.position.step, self.total_steps,
        )  # fmt: skip
        with pipeline as self.pipeline, stop_requests() as self.stop:
            self._agree_on_weights()
            # A job before may have been stopped in the evaluation of its last epoch.
            stopped = self._end_epoch_if_due()
            batches = _timed(self.pipeline, self)
            while not stopped and (batch := next(batches, None)) is not None:
                self.trace.step(batch)
                stopped = self._train_on(batch)
            self.stop.agreed = stopped
            # Before threads and memory of the input go, whatever may happen there.
            self._finish_saving()
        self.watchdog.close()
        return stopped

    def _finish_saving(self) -> None:
        """The last checkpoint is on disk, or was tried twice."""
        if self.saver:
            self.saver.finish()
            if self.saver.lost:
                self._write()
                self.saver.finish()

    def _open_outputs(self) -> None:
        """Progress, metrics and checkpoints of rank 0, and what watches over the training."""
        from ba_dist.run.metrics import Metrics, Progress

        first, run = self.comm.rank == 0, self.config.run
        self.progress = Progress(first, self.position.step, self.total_steps)
        self._stack.callback(self.progress.close)
        self.metrics = Metrics(self.folder) if first else None
        self.saver: saving.Saver | None = None
        if self.metrics:
            self._stack.callback(self.metrics.close)
            self.saver = saving.Saver(
                checkpoint.folder_of(self.folder), run.keep_checkpoints,
                run.checkpoint_every or self.steps_per_epoch, run.checkpoint_minutes,
                self.progress.say,
            )  # fmt: skip
            self._stack.callback(self.saver.close)
        self.watchdog = Watchdog(self.comm, run.stall_warning, run.stall_timeout)
        self._stack.callback(self.watchdog.close)
        self.stragglers = StragglerWatch()
        self.input_wait = self.reading = 0.0
        self.spent: tuple[float, ...] = ()

    def _train_on(self, batch: dict[str, Any]) -> bool:
        """One step and everything that is due after it; True when the run is to stop."""
        begun, next_step = time.monotonic(), self.position.step + 1
        rate = self.rate(self.position.step)
        weights = self.model.trainable_variables
        images = self.injector.before_step(next_step, batch["images"], weights)
        held = time.monotonic() - begun
        outcome = self.step(
            images,
            batch["labels"],
            rate,
            stop=self.stop.wanted,
            save=self.saver is not None and self.saver.due(next_step),
            corrupt=len(batch["replaced"]) if self.layout.lane(self.comm.rank) == 0 else 0,
            seconds=self.spent,
        )
        if not outcome["finite"]:
            self._leave_out(batch, images, outcome["loss_scale"])
        self.position.step = next_step
        self._count_corrupt(outcome["corrupt"])
        self.position.count(outcome["loss"], outcome["accuracy"])
        seconds = time.monotonic() - begun + self.input_wait
        self.position.seconds += seconds
        self.clock.step(seconds, self.input_wait)
        self._watch_stragglers(outcome, held)
        last = next_step == self.total_steps
        if next_step % self.config.run.log_every == 0 or last:
            self._log_step(outcome, rate)
        # Before the evaluation, which may be long: a time limit must not cost the epoch.
        if outcome["save"] or outcome["stop"] or self._evaluation_is_due():
            self.save()
        return (outcome["stop"] and not last) or self._end_epoch_if_due()

    def _watch_stragglers(self, outcome: dict[str, Any], held: float) -> None:
        """Names the ranks that all others wait for; what this rank has spent goes out next step."""
        read = self.pipeline.reading_seconds
        compute, allreduce = held + outcome["compute_seconds"], outcome["allreduce_seconds"]
        self.spent = (self.input_wait, read - self.reading, compute, allreduce)
        self.reading = read
        found = self.stragglers.step(outcome["seconds"])
        if self.stragglers.links_suspected:
            found += slow_links(self.comm.link_seconds(), self.comm.hosts)
        for slow in found:
            host = self.comm.hosts[slow.rank]
            self.progress.say(f"warning: rank {slow.rank} on {host} is {slow}")
            if self.metrics:
                facts = dataclasses.asdict(slow)
                self.metrics.write("straggler", self.position.step, host=host, **facts)

    def _leave_out(self, batch: dict[str, Any], images: Any, scale: float) -> None:
        """A gradient was not finite: all ranks leave the update out, or all stop.

        With a scaled loss that is how the scale is found, as long as there is scale to lose.
        """
        from ba_dist.data.pipeline import instances

        self.position.skipped += 1
        if scale > 1:
            return
        self.position.nonfinite += 1
        finite = self.step.is_finite_here(images, batch["labels"])
        warning = nonfinite.act(
            self.comm, self.folder, self.config.run, self.position.step + 1,
            self.position.nonfinite, finite, instances(batch),
        )  # fmt: skip
        self.progress.say(warning)

    def _log_step(self, outcome: dict[str, Any], rate: float) -> None:
        done, speed = self.position.step, self.clock.recent()
        self.progress.step(done, outcome["loss"], outcome["accuracy"], speed["images_per_second"])
        if self.metrics:
            self.metrics.write(
                "step",
                done,
                epoch=(done - 1) // self.steps_per_epoch,
                **{name: outcome[name] for name in ("loss", "accuracy", "grad_norm")},
                lr=rate,
                **speed,
                **self.position.counts(self.layout),
            )

    def _end_epoch_if_due(self) -> bool:
        """Evaluates and writes down an epoch that is over; True when asked to stop meanwhile."""
        done, last = self.position.step, self.position.step == self.total_steps
        whole = done % self.steps_per_epoch == 0
        if done in (0, self.position.ended) or not (whole or last):
            return False
        self._agree_on_weights()
        epoch = (done - 1) // self.steps_per_epoch
        values: dict[str, Any] = {"epoch": epoch, **self.position.epoch_means()}
        due = self._evaluation_is_due()
        if not self._ended_by_an_earlier_job(due):
            if due and not self._evaluate(values):
                self.save()
                return True
            self.progress.say(epoch_line(values, self.config.run.epochs))
            if self.metrics:
                self.metrics.write("epoch", done, **values, **self.position.counts(self.layout))
        self.position.ended = done
        if whole:
            self.position.begin_epoch()
        return False

    def _evaluation_is_due(self) -> bool:
        """Whether the run or one of the epochs to be evaluated ends with this step."""
        epochs, rest = divmod(self.position.step, self.steps_per_epoch)
        last = self.position.step == self.total_steps
        return last or (rest == 0 and epochs % self.config.run.eval_every == 0)

    def _ended_by_an_earlier_job(self, due: bool) -> bool:
        """Whether an earlier job has evaluated and written it down, after its checkpoint."""
        event = self._epoch_event
        if event is None or event["step"] != self.position.step:
            return False
        if due and "val_top1" not in event:
            return False
        self.position.val |= {name: v for name, v in event.items() if name.startswith("val_")}
        return True

    def _evaluate(self, values: dict[str, Any]) -> bool:
        """Adds what comes of it to the values; False when the ranks agreed to stop meanwhile."""
        done = self.position.step
        found = self.evaluate(
            beat=lambda: self.watchdog.beat("evaluating", done), stop=lambda: self.stop.wanted
        )
        if found is not None:
            self.position.val = found
            values |= found
        return found is not None

    def _count_corrupt(self, found: int) -> None:
        """Ends the run, on all ranks after the same step, when an epoch has met too many."""
        self.position.corrupt += found
        budget = self.config.data.corrupt_budget
        if self.position.corrupt > budget:
            raise agreed(
                DataError(
                    f"{self.position.corrupt} corrupt records in this epoch, --corrupt-budget is"
                    f" {budget}; `ba-dist data verify` lists them"
                )
            )

    # --- what is written down ---------------------------------------------------------------------

    def describe(self) -> None:
        """Writes config.json, and says once what is about to run."""
        hosts = self.comm.hosts
        if self.comm.rank != 0:
            return
        path = self.folder / "config.json"
        layouts = record.add_layout(path, self.position.step, self.layout)
        facts = record.facts(self.config, self.dataset, layouts, self.steps_per_epoch, hosts)
        run_dir.write_json(path, facts)
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
            checkpoint_seconds=self.saver.seconds if self.saver else 0.0,
            input={
                "mode": self.config.placement.io,
                "wait_share": waited / self.layout.world_size,
                **{name: int(n) for name, n in zip(counters, totals, strict=True)},
            },
        )
        if self.comm.rank == 0:
            run_dir.write_json(self.folder / "summary.json", summary)
        return summary


def _timed(batches: Any, job: Job) -> Iterator[dict[str, Any]]:
    """The batches; the seconds that each was waited for go to the job."""
    source, warm = iter(batches), False
    while True:
        begun = time.monotonic()
        job.watchdog.beat("waiting for input", job.position.step)
        batch = next(source, None)
        if batch is None:
            return
        job.watchdog.beat("in the step" if warm else "starting", job.position.step)
        warm = True
        job.input_wait = time.monotonic() - begun
        yield batch
