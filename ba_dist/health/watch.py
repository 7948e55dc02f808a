"""What watches over the steps of a run: seconds, stragglers, corrupt records, equal replicas."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ba_dist.comm import Comm
from ba_dist.comm.vote import Vote
from ba_dist.config import Config
from ba_dist.data.batch import Batch
from ba_dist.data.pipeline import InputPipeline
from ba_dist.errors import DataError, agreed
from ba_dist.health import replicas
from ba_dist.health.stragglers import StragglerWatch, slow_links
from ba_dist.health.watchdog import Watchdog
from ba_dist.rules.layout import Layout

if TYPE_CHECKING:  # a step loads TensorFlow
    from ba_dist.step import StepResult


class Watch:
    """Looks at every step of this rank, and at what the others tell of theirs.

    Args:
        comm: the world.
        layout: of the ranks.
        config: how long a stall may last, and how many records may be corrupt.
        watchdog: notices when nothing moves.
        say: gets a straggler's message and its facts.
    """

    def __init__(
        self,
        comm: Comm,
        layout: Layout,
        config: Config,
        *,
        watchdog: Watchdog,
        say: Callable[[str, Mapping[str, Any]], None],
    ):
        self._comm, self._layout, self._config = comm, layout, config
        self._watchdog, self._say = watchdog, say
        self._stragglers = StragglerWatch()
        self._agreed = -1  # the step after which the replicas were last compared
        self.input_wait = 0.0  # seconds that the batch at hand was waited for
        self._begun = self._held = 0.0
        self._reading = 0.0  # of the pipeline, up to the last step
        self._pipeline: InputPipeline | None = None
        self._told: Sequence[float] = ()

    def batches(self, pipeline: InputPipeline, done: int) -> Iterator[Batch]:
        """The batches, with an eye on how long each is waited for; `done` steps are done before."""
        self._pipeline, batches = pipeline, iter(pipeline)
        activity = "starting"
        while True:
            begun = time.monotonic()
            self.beat("waiting for input", done)
            batch = next(batches, None)
            if batch is None:
                return
            self.beat(activity, done)
            activity = "in the step"
            self.input_wait = time.monotonic() - begun
            done += 1
            yield batch

    def beat(self, activity: str, done: int) -> None:
        """This rank makes progress."""
        self._watchdog.beat(activity, done)

    def begin_step(self) -> None:
        """The batch is at hand."""
        self._begun = time.monotonic()

    def vote(self, batch: Batch, stop: bool, save: bool) -> Vote:
        """What this rank tells the others with its gradient."""
        self._held = time.monotonic() - self._begun
        # All lanes of a group meet the same corrupt records: one of them reports.
        reports = self._layout.lane(self._comm.rank) == 0
        return Vote(
            stop=stop,
            save=save,
            corrupt=len(batch.replaced) if reports else 0,
            seconds=self._told,
        )

    def end_step(self) -> float:
        """Seconds of this step, with those that its batch was waited for."""
        return time.monotonic() - self._begun + self.input_wait

    def look(self, result: "StepResult") -> None:
        """Names the ranks that all others wait for; what this one took goes out next step."""
        assert self._pipeline is not None  # a step has come from it
        reading = self._pipeline.reading_seconds
        compute = self._held + result.compute_seconds
        read = reading - self._reading
        self._reading = reading
        found = self._stragglers.look(
            result.paces, lambda told: self._comm.world.gather_all(np.array(told))
        )
        self._told = self._stragglers.add(
            (self.input_wait, read, compute, result.allreduce_seconds)
        )
        if self._stragglers.links_suspected:
            found += slow_links(self._comm.link_seconds(), self._comm.hosts)
        for slow in found:
            host = self._comm.hosts[slow.rank]
            text = f"warning: rank {slow.rank} on {host} is {slow}"
            self._say(text, {"host": host, **dataclasses.asdict(slow)})

    def check_corrupt(self, found: int) -> None:
        """Ends the run, on all ranks after the same step, when an epoch has met too many.

        Args:
            found: corrupt records of the epoch so far.

        Raises:
            DataError: on all ranks.
        """
        budget = self._config.data.corrupt_budget
        if found > budget:
            raise agreed(
                DataError(
                    f"{found} corrupt records in this epoch, --corrupt-budget is"
                    f" {budget}; `ba-dist data verify` lists them"
                )
            )

    def compare_replicas(self, state: Mapping[str, Any], done: int) -> str | None:
        """The digest of the state that all ranks hold; None where it was compared before.

        Collective over the world, and ends the run where the ranks' states differ.
        """
        if done == self._agreed:
            return None
        self._agreed = done
        return replicas.agree(state, self._comm, done)


@contextmanager
def open_watch(
    comm: Comm,
    layout: Layout,
    config: Config,
    say: Callable[[str, Mapping[str, Any]], None],
) -> Iterator[Watch]:
    """A watch for the length of a block, which ends its thread."""
    watchdog = Watchdog(comm, config.run.stall_warning, config.run.stall_timeout)
    try:
        yield Watch(comm, layout, config, watchdog=watchdog, say=say)
    finally:
        watchdog.close()
