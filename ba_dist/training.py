"""A training run, from the configuration to the summary, read from top to bottom."""

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ba_dist import experiment, runtime
from ba_dist.between_steps import Run, compare_replicas, end_epoch, leave_out, save
from ba_dist.comm import Comm, start
from ba_dist.config import Config, adapted, layout_of, override, plan_steps
from ba_dist.data.catalog import Dataset, open_dataset
from ba_dist.data.order import rate_factor
from ba_dist.data.pipeline import InputPipeline, choose_exchange, open_pipeline
from ba_dist.data.sources import Source
from ba_dist.errors import DataUnavailable, reason
from ba_dist.health import devices, inject, replicas
from ba_dist.health.signals import StopRequest, stop_requests
from ba_dist.health.watch import Watch, open_watch
from ba_dist.recipes.quickstart import on_digits
from ba_dist.reports.page import write_report
from ba_dist.rules.layout import Layout
from ba_dist.run import loggers, record, run_dir, saving
from ba_dist.run.report import REPORT
from ba_dist.run.writer import Writer, open_writer
from ba_dist.storage.cache import data_dir
from ba_dist.tasks import Task

# Tells the job script or the scheduler: stopped on request, run me again.
RUN_AGAIN = 75


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        run_dir: the run's folder.
        summary: as in summary.json; None when it was stopped on request.
        step: steps that are done.
        task: what was learned.
        finished_before: whether there was nothing left to do.
    """

    run_dir: Path
    summary: dict[str, Any] | None
    step: int
    task: Task
    finished_before: bool = False


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
    # --- the world: ranks, layout, run directory, devices -----------------------------------------
    comm = start()
    config = adapted(config)
    layout = layout_of(config, comm.world_size)
    experiment.check(config)
    if logger := config.run.logger:
        comm.together(lambda: loggers.find(logger) if comm.rank == 0 else None)
    with ExitStack() as stack:
        folder = saving.open_run_dir(config, comm, stack)
        layout = _start_devices(config, layout, comm)
        injector = inject.Injector(faults or [], comm.rank)
        # --- what learns what: samples, task, network, step, evaluation ---------------------------
        config, dataset = _open_samples(config, comm)
        plan = plan_steps(config, len(dataset.train), comm.world_size)
        # Together, because a network of somebody's own may lie on some of the nodes only.
        made = comm.together(
            lambda: experiment.assemble(
                config, dataset.info, layout.ghost_batch, layout.instances_per_rank
            )
        )
        weights, taken = None, ""
        if config.model.init_from:
            weights, taken = experiment.start_from(made, dataset.info, comm)
        run = Run(
            config=config,
            layout=layout,
            comm=comm,
            plan=plan,
            folder=folder,
            made=made,
            step=experiment.train_step(made, layout, comm),
            hyper=experiment.hyperparameters(
                config,
                plan.steps_per_epoch,
                rate_factor(config, dataset.info, len(dataset.train)),
            ),
            evaluate=stack.enter_context(experiment.evaluator(made, dataset.validation, comm)),
            facts=record.identity(config, layout, dataset, weights),
        )
        # --- an earlier job of the run may have come some way -------------------------------------
        if not config.run.resume:
            saving.begin_anew(folder, comm)
        _resume(run)
        saving.check_not_beyond(folder, plan, run.position.step, config.run)
        if saving.is_finished(folder, plan, run.position.step, comm):
            earlier = run_dir.read_json(folder / "summary.json")
            return Outcome(folder, earlier, run.position.step, made.task, finished_before=True)
        exchange = choose_exchange(config, dataset.train, layout, comm)
        record.describe(
            *(folder, config, layout),
            dataset=dataset,
            task=made.task,
            plan=plan,
            done=run.position.step,
            comm=comm,
            exchange=exchange,
        )
        if taken and comm.rank == 0 and run.position.step == 0:
            print(f"starting from {taken}", flush=True)
        # --- the steps ----------------------------------------------------------------------------
        writer = stack.enter_context(_open_writer(run))
        writer.start(dataset.train, run.position.step)
        source = injector.source(dataset.train)
        stopped = _train(run, writer, source, injector, exchange=exchange.way)
        # --- the end ------------------------------------------------------------------------------
        summary = None if stopped else _summarise(run, writer, dataset)
        if summary is not None:
            writer.end(summary)
        if comm.rank == 0:
            _write_report(folder)
        return Outcome(folder, summary, run.position.step, made.task)


# --- before the first step ------------------------------------------------------------------------


def _start_devices(config: Config, layout: Layout, comm: Comm) -> Layout:
    """TensorFlow and Horovod on all ranks, and the layout with what fits on a device at once."""
    comm.together(lambda: runtime.prepare(comm.node.rank, comm.node.size, comm.cores))
    devices.check(comm)
    comm.together(comm.start_horovod)
    if config.placement.microbatch is not None:
        return layout
    size = layout.microbatch_within(runtime.default_microbatch())
    return dataclasses.replace(layout, microbatch=size)


def _open_samples(config: Config, comm: Comm) -> tuple[Config, Dataset]:
    """The samples; where nothing can be reached, `quickstart` takes what is in a wheel."""
    try:
        return config, open_dataset(config.data, comm)
    except DataUnavailable as error:
        if config.recipe != "quickstart" or data_dir(config.data.data_dir):
            raise
        if comm.rank == 0:
            print(f"{error}\nTraining on scikit-learn's digits instead.", flush=True)
        config = on_digits(config)
        return config, open_dataset(config.data, comm)


def _resume(run: Run) -> None:
    """Goes on from the newest good checkpoint of the run directory, if there is one."""
    found = saving.find(run.folder, run.comm)
    if found is not None:
        run.comm.together(lambda: saving.check_same_run(found.facts, run.facts))
        run.comm.together(lambda: saving.restore(found, run.step, run.layout, run.comm.rank))
        run.position = saving.position_of(found)
    replicas.spread(run.step.state(), run.comm)
    run.ended_before = saving.cut_back(run.folder, run.position.step, run.comm)


def _open_writer(run: Run) -> Any:
    return open_writer(
        run.folder,
        run.config,
        run.made.task,
        layout=run.layout,
        rank=run.comm.rank,
        plan=run.plan,
        done=run.position.step,
    )


# --- the steps ------------------------------------------------------------------------------------


def _train(
    run: Run, writer: Writer, source: Source, injector: inject.Injector, *, exchange: str
) -> bool:
    """All steps that are left; True when the ranks agreed to stop before the end."""
    pipeline_of_run = open_pipeline(
        override(run.config, {"exchange": exchange}),
        source,
        run.made.task,
        layout=run.layout,
        comm=run.comm,
        first=run.position.step,
        last=run.plan.total_steps,
    )

    def say(text: str, facts: Mapping[str, Any]) -> None:
        writer.straggler(text, facts, run.position.step)

    with (
        open_watch(run.comm, run.layout, run.config, say) as watch,
        pipeline_of_run as pipeline,
        stop_requests() as stop,
    ):
        stopped = _loop(run, writer, watch, pipeline=pipeline, stop=stop, injector=injector)
        stop.agreed = stopped
        # Before threads and memory of the input go, whatever may happen there.
        writer.finish()
    return stopped


def _loop(
    run: Run,
    writer: Writer,
    watch: Watch,
    *,
    pipeline: InputPipeline,
    stop: StopRequest,
    injector: inject.Injector,
) -> bool:
    position, plan = run.position, run.plan
    compare_replicas(run, writer, watch)
    # A job before may have been stopped in the evaluation of its last epoch.
    if end_epoch(run, writer, watch, stop):
        return True
    for batch in watch.batches(pipeline, position.step):
        writer.batch(batch)
        watch.begin_step()
        number = position.step + 1
        batch = injector.before_step(number, batch, run.made.model.trainable_variables)
        hyper = run.hyper(position.step)
        vote = watch.vote(batch, stop=stop.wanted, save=writer.wants_checkpoint(number))
        result = run.step(batch, hyper, vote)
        if not result.finite:
            leave_out(run, writer, batch, result.loss_scale)
        position.step = number
        position.corrupt += result.corrupt
        watch.check_corrupt(position.corrupt)
        position.count(result.loss, result.metrics)
        seconds = watch.end_step()
        position.seconds += seconds
        writer.clock.step(result.units, seconds, watch.input_wait)
        watch.look(result)
        writer.step(position, result, hyper)
        # Before the evaluation, which may be long: a time limit must not cost the epoch.
        if result.save or result.stop or plan.evaluates(number):
            save(run, writer, watch)
        if result.stop and not plan.is_over(number):
            return True
        if end_epoch(run, writer, watch, stop):
            return True
    return False


# --- the end --------------------------------------------------------------------------------------


def _summarise(run: Run, writer: Writer, dataset: Dataset) -> dict[str, Any]:
    """Writes summary.json on rank 0 and returns it everywhere; collective over the world."""
    counters = dataset.train.counters.as_dict()
    best = {"best": run.position.best, "best_step": run.position.best_step}
    *totals, waited = run.comm.sum([*counters.values(), writer.clock.waited()])
    summary = record.summary(
        run.config,
        run.layout,
        run.position.step,
        run.plan.steps_per_epoch,
        skipped_updates=run.position.skipped,
        **run.position.val,
        **(best if run.config.run.keep_best else {}),
        **writer.clock.speed(),
        seconds=run.position.seconds,
        checkpoint_seconds=writer.checkpoint_seconds,
        input={
            "mode": run.config.placement.io,
            "wait_share": waited / run.layout.world_size,
            **{name: int(n) for name, n in zip(counters, totals, strict=True)},
        },
    )
    if run.comm.rank == 0:
        run_dir.write_json(run.folder / "summary.json", summary)
    return summary


def _write_report(folder: Path) -> None:
    """Writes report.html; a run is worth more than its report, so nothing ends for lack of one."""
    try:
        write_report([folder])
    except Exception as error:
        print(f"warning: no {REPORT}: {reason(error)}", flush=True)
