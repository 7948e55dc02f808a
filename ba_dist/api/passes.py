"""The passes of a script through its training batches, and what ends them."""

import atexit
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from ba_dist.api.words import parameters
from ba_dist.comm import Channel, Comm, end_job
from ba_dist.config import Config
from ba_dist.data.pipeline import InputPipeline, make_pipeline
from ba_dist.data.sources import Source, Workers
from ba_dist.errors import UserError
from ba_dist.health.script_watchdog import ScriptWatchdog
from ba_dist.rules.layout import Layout
from ba_dist.tasks import Task

_ENDLESS = 2**60  # steps


class Passes:
    """Opens a pipeline for each pass through the batches; made by all ranks together.

    Args:
        config: of the script.
        task: makes instances.
        source: the samples to train on.
        layout: of the ranks.
        comm: the world.
        workers: threads that read, decode and augment.
    """

    def __init__(
        self,
        config: Config,
        task: Task,
        source: Source,
        *,
        layout: Layout,
        comm: Comm,
        workers: Workers,
    ):
        self._config, self._task, self._source = config, task, source
        self._layout, self._comm, self._workers = layout, comm, workers
        self._group, self._world = comm.group(layout), comm.world.duplicate()
        self._ranks_here = comm.node.size
        self._watch: ScriptWatchdog | None = None
        if comm.world_size > 1 and config.run.stall_timeout:
            self._watch = ScriptWatchdog(comm, config.run.stall_timeout)
            atexit.register(self._watch.close)

    def in_turn(self, steps: int | None, first: int) -> Callable[[], Iterator[tuple[Any, Any]]]:
        """Makes one pass after the other, each beginning where the one before has ended.

        Args:
            steps: of each pass; None for no end.
            first: step of the first one.
        """
        begin = [first]

        def one() -> Iterator[tuple[Any, Any]]:
            if steps is None:
                return self._through(begin[0], None, taken=begin)
            begin[0] += steps
            return self._through(begin[0] - steps, begin[0], taken=[0])

        return one

    def _through(self, first: int, last: int | None, taken: list[int]) -> Iterator[tuple[Any, Any]]:
        """(images, labels) of steps `first` … `last`-1; collective over the group.

        Args:
            first: step to begin with.
            last: step to end before; None for no end, and then collective over the world.
            taken: gets the number of steps that are done.
        """
        done = first
        self._beat("waiting for input", first)
        if last is None:
            # Where the pass before was left, ranks may have taken different numbers ahead.
            first = int(self._world.gather_all(np.array(first)).max())
        channel = self._group.duplicate()  # the pass before may not have ended everywhere
        pipeline = self._open(channel, first, last or _ENDLESS)
        try:
            for batch in pipeline:
                taken[0] = done = batch.step + 1
                self._beat("in the step", done)
                yield batch.inputs["images"], batch.inputs["labels"]
                self._beat("waiting for input", done)
        except GeneratorExit:  # left early, on every rank after the same step
            self._close(pipeline, channel, done)
            raise
        except BaseException as error:
            pipeline.abandon()
            fail(error, self._comm)
        self._close(pipeline, channel, done)

    def _open(self, channel: Channel, first: int, last: int) -> InputPipeline:
        return make_pipeline(
            self._config,
            self._source,
            self._task,
            layout=self._layout,
            rank=self._comm.rank,
            channel=channel,
            sharing=self._ranks_here,
            workers=self._workers,
            readers=self._workers,
            first=first,
            last=last,
            finished=True,
        )

    def _close(self, pipeline: InputPipeline, channel: Channel, done: int) -> None:
        self._beat("leaving", done)
        pipeline.close()
        channel.free()

    def _beat(self, activity: str, done: int) -> None:
        if self._watch is not None:
            self._watch.beat(activity, done)


def fail(error: BaseException, comm: Comm) -> NoReturn:
    """Raises an error that this rank alone has met; where others wait for it, it ends the job."""
    if not isinstance(error, UserError):
        raise error
    if comm.world_size > 1:
        end_job(parameters(f"{error}"), 1)
    raise type(error)(parameters(f"{error}")) from None
