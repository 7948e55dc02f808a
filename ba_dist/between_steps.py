"""What happens between two steps of a run: updates left out, checkpoints, the end of an epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ba_dist import experiment
from ba_dist.comm import Comm
from ba_dist.config import Config
from ba_dist.data.batch import Batch
from ba_dist.health import nonfinite
from ba_dist.health.signals import StopRequest
from ba_dist.health.watch import Watch
from ba_dist.rules.layout import Layout
from ba_dist.rules.plan import Plan
from ba_dist.run import instance_state
from ba_dist.run.position import Position
from ba_dist.run.writer import Writer


@dataclass
class Run:
    """What the parts of a training run share on one rank. Only `position` and `saved` change."""

    config: Config
    layout: Layout
    comm: Comm
    plan: Plan
    folder: Path
    made: experiment.Experiment
    step: Any  # step.TrainStep
    hyper: Any  # step, from 0 → hyperparameters
    evaluate: Any  # evaluate.Evaluator
    facts: dict[str, Any]  # what makes it this run
    position: Position = field(default_factory=Position)
    ended_before: Mapping[str, Any] | None = None  # metrics of an epoch that an earlier job ended
    saved: int = -1  # steps that were done at the last checkpoint of this job


def leave_out(run: Run, writer: Writer, batch: Batch, loss_scale: float) -> None:
    """A gradient was not finite: all ranks leave the update out, or all stop.

    With a scaled loss that is how the scale is found, as long as there is scale to lose.
    """
    position = run.position
    position.skipped += 1
    if loss_scale > 1:
        return
    position.nonfinite += 1
    warning = nonfinite.stop_or_skip(
        run.comm,
        run.folder,
        run.config.run,
        step=position.step + 1,
        count=position.nonfinite,
        finite=run.step.is_finite_here(batch),
        instances=batch.instances,
    )
    writer.say(warning)


def save(run: Run, writer: Writer, watch: Watch) -> None:
    """Begins to write a checkpoint on rank 0; collective over the world.

    Not before all ranks have the same state: one of replicas that differ would be lost work.
    """
    done = run.position.step
    if done == run.saved:
        return
    watch.beat("saving", done)
    compare_replicas(run, writer, watch)
    rows = instance_state.gather(run.step.instance_state(), run.layout, run.comm.world)
    writer.checkpoint(run.position, run.step.state(), rows, run.facts)
    run.saved = done


def _keep_best(run: Run, writer: Writer, watch: Watch) -> None:
    """Begins to write the best checkpoint, if this evaluation is the best one; collective."""
    # All ranks have the same result. What was saved before this evaluation does not know of it, so
    # a job that goes on from there comes here once more.
    task = run.made.task
    if not run.position.is_best(run.position.val[task.judged_by], task.less_is_better):
        return
    watch.beat("saving", run.position.step)
    rows = instance_state.gather(run.step.instance_state(), run.layout, run.comm.world)
    writer.best_checkpoint(run.position, run.step.state(), rows, run.facts)


def _average_from_here(run: Run, writer: Writer) -> None:
    """Begins the mean of the weights when evaluations get no better; all ranks have the same one.

    What was saved before this evaluation does not know of it, as in `_keep_best`.
    """
    average, after = run.step.average, run.config.optimizer.average_after
    if after is None or not average.waits:
        return
    task = run.made.task
    result = run.position.val[task.judged_by]
    if run.position.no_longer_betters(result, after, task.less_is_better):
        average.begin()
        writer.say(
            f"{task.headline} is worse than the best of more than {after} evaluations ago: the"
            f" weights are averaged from step {run.position.step} on"
        )


def compare_replicas(run: Run, writer: Writer, watch: Watch) -> None:
    """Ends the run where the ranks' weights differ; collective over the world."""
    done = run.position.step
    writer.weights(watch.compare_replicas(run.step.state(), done), done)


def end_epoch(run: Run, writer: Writer, watch: Watch, stop: StopRequest) -> bool:
    """Evaluates and writes down an epoch that is over; True when asked to stop meanwhile."""
    position, plan, done = run.position, run.plan, run.position.step
    if not plan.ends_epoch(done) or done == position.ended:
        return False
    compare_replicas(run, writer, watch)
    values: dict[str, Any] = {"epoch": plan.epoch(done), **position.epoch_means()}
    due = plan.evaluates(done)
    if not _ended_by_an_earlier_job(run, due):
        if due:
            with run.step.averaged():
                found = run.evaluate(
                    beat=lambda: watch.beat("evaluating", done), stop=lambda: stop.wanted
                )
            if found is None:
                save(run, writer, watch)
                return True
            position.val = found
            values |= found
        writer.epoch(position, values)
    if due and run.config.run.keep_best:
        _keep_best(run, writer, watch)
    if due:
        _average_from_here(run, writer)
    position.ended = done
    if plan.fills_epoch(done):
        position.begin_epoch()
    return False


def _ended_by_an_earlier_job(run: Run, due: bool) -> bool:
    """Whether an earlier job has evaluated and written it down, after its checkpoint."""
    event = run.ended_before
    if event is None or event["step"] != run.position.step:
        return False
    if due and run.made.task.judged_by not in event:
        return False
    run.position.val |= {name: v for name, v in event.items() if name.startswith("val_")}
    return True
