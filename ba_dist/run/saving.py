"""When a run saves its state, copied at once and written beside training; how it is found again."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ba_dist.comm import Comm
from ba_dist.config import Config, Run, check_computation, differences
from ba_dist.errors import CheckpointError, ConfigError, UserError, agreed, reason
from ba_dist.rules.layout import Layout
from ba_dist.rules.plan import Plan
from ba_dist.run import checkpoint, instance_state, run_dir, trace
from ba_dist.run.checkpoint import Arrays, Checkpoint
from ba_dist.run.position import Position, from_facts

if TYPE_CHECKING:  # a step loads TensorFlow
    from ba_dist.step import TrainStep


class Saver:
    """Saves the checkpoints of a run, one at a time, in a thread of its own; only rank 0 has one.

    Args:
        folder: of the checkpoints.
        keep: how many stay.
        every: steps between two.
        minutes: between two as well; None for steps alone.
        say: shows a line beside the progress bar.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        every: int,
        minutes: float | None,
        say: Callable[[str], None],
    ):
        self._folder, self._keep, self._say = folder, keep, say
        self._every, self._seconds = every, minutes and 60 * minutes
        self._last = time.monotonic()
        self._writer = ThreadPoolExecutor(1, "checkpoint-writer")
        self._writing: Future[Path] | None = None
        self._step, self._best = 0, False  # of what is being written
        self.seconds = 0.0  # that training has waited for
        self.lost = False  # whether the last one could not be written

    def due(self, step: int) -> bool:
        """Whether the state after this step is to be saved."""
        late = self._seconds and time.monotonic() - self._last >= self._seconds
        return bool(step % self._every == 0 or late)

    def save(
        self,
        step: int,
        variables: Mapping[str, Any],
        rows: Arrays,
        facts: dict[str, Any],
        best: bool = False,
    ) -> None:
        """Copies the state, once the checkpoint before it is written, and begins to write.

        Args:
            step: steps that are done.
            variables: name → variable of what all ranks hold alike.
            rows: name → array of what differs from rank to rank, already gathered and copied.
            facts: what else a resumed run needs.
            best: as the best checkpoint, not as the newest.
        """
        begun = time.monotonic()
        self.finish()
        # What numpy() gives may be the variable's own memory, which the next step changes.
        arrays = {name: np.array(variable.numpy()) for name, variable in variables.items()}
        state = Checkpoint(step, {**arrays, **rows}, facts)
        self._last, self._step, self._best = time.monotonic(), step, best
        write, more = (checkpoint.save_best, ()) if best else (checkpoint.save, (self._keep,))
        self._writing = self._writer.submit(write, self._folder, state, *more)
        self.seconds += time.monotonic() - begun

    def finish(self) -> None:
        """Waits for what is being written, and warns if it could not be."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        self.lost = self.lost and self._best  # the best one does not take the newest one's place
        try:
            writing.result()
        except OSError as error:
            self.lost = self.lost or not self._best
            what = "best checkpoint, that" if self._best else "checkpoint"
            # The one before is still there; losing it all to a full disk would be worse.
            self._say(f"warning: no {what} of step {self._step}: {reason(error)}; going on")

    def close(self) -> None:
        """Ends the thread; what is being written is finished."""
        self.finish()
        self._writer.shutdown()


def open_run_dir(config: Config, comm: Comm, stack: ExitStack) -> Path:
    """Agrees on the run directory and holds it; rank 0 alone touches it before the others do.

    One that is new is taken away again when the run is refused before anything is written.
    """
    folder = Path(config.run.run_dir or run_dir.default(config.title))
    folder = comm.world.share_object(folder.absolute())

    def claim() -> None:
        made = run_dir.missing(folder)
        stack.callback(run_dir.claim(folder).release)
        stack.push(lambda kind, *_: run_dir.unclaim(folder, made) if kind else None)

    comm.together(claim if comm.rank == 0 else lambda: None)
    return folder


def begin_anew(folder: Path, comm: Comm) -> None:
    """Puts an older run of the folder aside and says where it is; collective over the world."""

    def move() -> None:
        try:
            moved = run_dir.set_aside(folder)
        except OSError as error:
            raise UserError(f"the older run in {folder} cannot be moved: {reason(error)}") from None
        if moved:
            print(f"the older run of {folder} is in {moved} now", flush=True)

    comm.together(move if comm.rank == 0 else lambda: None)


def check_not_beyond(folder: Path, plan: Plan, done: int, run: Run) -> None:
    """Refuses a run that is already further than it is asked to go.

    Raises:
        ConfigError: with the lengths that would work.
    """
    if done <= plan.total_steps:
        return
    epochs = -(-done // plan.steps_per_epoch)
    asked, works = f"--epochs {run.epochs}", f"--epochs {epochs}"
    if run.steps is not None:
        asked, works = f"--steps {run.steps}", f"--steps {done}"
    raise ConfigError(
        f"the run in {folder} is at step {done}, beyond step {plan.total_steps}, the last of"
        f" {asked}; nothing was trained. Give {works} or more, another --run-dir, or --no-resume"
    )


def check_same_run(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuses a checkpoint of another run.

    Args:
        saved: facts of the checkpoint.
        now: `config` and `data` of this run.

    Raises:
        ConfigError: when a version that computes something else has saved it.
        CheckpointError: naming every setting or fact of the data that has changed.
    """
    check_computation(saved.get("computation", 1))
    data = differences({"data": saved["data"]}, {"data": now["data"]})
    settings = differences(saved["config"], now["config"])
    for what, changed in (("settings", settings), ("data", data)):
        if changed:
            raise CheckpointError(
                f"the run directory holds a run with other {what}: {'; '.join(changed)}. Use the"
                f" same {what}, another --run-dir, or --no-resume to start anew"
            )


def find(run: Path, comm: Comm) -> Checkpoint | None:
    """The newest good checkpoint of a run, on every rank; collective over the world.

    Raises:
        CheckpointError: on all ranks, when there are checkpoints but none can be read, or their
            folder cannot.
    """
    folder = checkpoint.folder_of(run)
    none: tuple[Checkpoint | None, list[str]] = (None, [])
    found, complaints = comm.together(lambda: checkpoint.newest(folder) if comm.rank == 0 else none)
    for complaint in complaints:
        print(f"warning: {complaint}; trying the one before", flush=True)
    if comm.world.share_object(found is None and bool(complaints)):
        raise agreed(
            CheckpointError(
                f"no checkpoint in {folder} can be read; --no-resume starts from zero and keeps"
                " them aside"
            )
        )
    return checkpoint.share(found, comm)


def restore(found: Checkpoint, step: "TrainStep", layout: Layout, rank: int) -> None:
    """Sets everything that a step moves on to what a checkpoint holds.

    Args:
        found: the checkpoint, on every rank.
        step: whose variables are set.
        layout: of the ranks.
        rank: this one, which takes the rows of its instances.

    Raises:
        CheckpointError: naming the first variable that does not fit.
    """
    rows = step.instance_state()
    arrays = {**found.arrays, **instance_state.take(found.arrays, rows, layout, rank)}
    checkpoint.restore(arrays, {**step.state(), **rows})


def position_of(found: Checkpoint) -> Position:
    """Where the run was when a checkpoint was saved."""
    return from_facts(found.facts["position"])


def cut_back(folder: Path, done: int, comm: Comm) -> dict[str, Any] | None:
    """Drops what a resumed run will write again; collective over the world.

    Args:
        folder: the run directory.
        done: steps that are done.
        comm: the world.

    Returns:
        What metrics.jsonl says of the epoch that ended after so many steps, if one was ended.
    """
    event = None
    if comm.rank == 0:
        metrics = folder / "metrics.jsonl"
        run_dir.cut_back(metrics, done)
        event = run_dir.epoch_event(metrics, done)
    event = comm.world.share_object(event)
    trace.cut_back(folder, done, comm.rank, comm.world_size)
    comm.world.barrier()
    return event


def is_finished(folder: Path, plan: Plan, done: int, comm: Comm) -> bool:
    """Whether an earlier job has done all steps and written the summary; collective.

    The summary may be that of fewer steps: earlier versions kept it when a run went on.
    """
    path = folder / "summary.json"
    there = comm.rank == 0 and path.exists() and run_dir.read_json(path)["steps"] == done
    return bool(comm.world.share_object(there) and plan.is_over(done))
