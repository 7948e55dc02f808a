"""Group reader → augmented instances, ready for the step, made ahead in a thread."""

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ba_dist import runtime
from ba_dist.comm import Channel, Comm
from ba_dist.config import Config
from ba_dist.data.batch import Batch, InstanceMaker, Instances, finish, pack
from ba_dist.data.group.choice import Exchange, choose
from ba_dist.data.group.group_reader import GroupBatch, GroupReader
from ba_dist.data.group.record_exchange import ReadMode
from ba_dist.data.order import order_of
from ba_dist.data.sources import Source, Workers, workers
from ba_dist.errors import UserError
from ba_dist.rules.keys import augmentation_keys
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import GroupSampler


class InputPipeline:
    """The instances of one rank, a step at a time; one batch lies ready.

    Instance i = k·b + s is sample s of the group's batch in the copy l·K + k: consecutive instances
    are different samples with the same copy index, as ghost batches need them.

    A thread of its own makes them, not tf.data, because it must be known to have ended before the
    memory that it reads from is given back.

    Args:
        reader: the batches of the group; the pipeline closes it.
        maker: makes instances of samples, the task.
        layout: of the ranks.
        rank: this one.
        seed: of the run.
        workers: threads that augment.
        traced: also give a digest of the group's batch.
        finished: give tensors that are ready for the network, where no step finishes them.
    """

    def __init__(
        self,
        reader: GroupReader,
        maker: InstanceMaker,
        layout: Layout,
        *,
        rank: int,
        seed: int,
        workers: Workers | None = None,
        traced: bool = False,
        finished: bool = False,
    ):
        self._reader = reader
        self._maker = maker
        self._copies = np.array(layout.copies(rank))
        self._seed = seed
        self._layout = layout
        self._workers = workers or Workers(1)
        self._traced, self._finished = traced, finished
        self._changed = threading.Condition()
        self._ready: Batch | None = None
        self._over = self._closed = False
        self._one_closes = threading.Lock()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._make_all, name="augment", daemon=True)
        self._thread.start()
        # A script may end without having closed what it left early.
        atexit.register(self.close)

    def __iter__(self) -> Iterator[Batch]:
        """The batches in order of steps; raises the error that ended the reading."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready is not None or self._over)
                batch, self._ready = self._ready, None
                self._changed.notify_all()
            if batch is None:
                if self._failure:
                    raise self._failure
                return
            self._reader.advance()
            yield batch

    def close(self) -> None:
        """Ends the threads, then gives the memory back; collective over the group.

        The lanes may have taken different numbers of batches ahead, but all must close.
        """
        # TensorFlow closes what a script has left in a thread of its own: who comes second waits.
        with self._one_closes:
            if self._closed:
                return
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            self._reader.stop()
            self._thread.join()
            self._reader.close()
            atexit.unregister(self.close)

    def abandon(self) -> None:
        """After an error of this rank alone: the other lanes will not come to `close`."""
        self._reader.stop()
        atexit.unregister(self.close)

    @property
    def reading_seconds(self) -> float:
        """That this rank has spent on reading and decoding its part so far."""
        return self._reader.seconds

    def _make_all(self) -> None:
        """The thread: one batch after the other, each when the one before has been taken."""
        try:
            for batch in self._reader:
                made = self._element(batch)
                with self._changed:
                    self._changed.wait_for(lambda: self._ready is None or self._closed)
                    if self._closed:
                        return
                    self._ready = made
                    self._changed.notify_all()
        except BaseException as error:  # handed to the thread that asks for the next batch
            self._failure = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _element(self, batch: GroupBatch) -> Batch:
        copies, samples = len(self._copies), len(batch.sample_ids)
        keys = augmentation_keys(
            self._seed, batch.epoch, batch.sample_ids[None, :], self._copies[:, None]
        ).reshape(-1)
        packed = pack(
            self._maker,
            batch.samples,
            batch.labels,
            keys,
            ghost_batch=self._layout.ghost_batch,
            workers=self._workers,
        )
        return Batch(
            step=batch.step,
            epoch=batch.epoch,
            inputs=finish(self._maker, packed) if self._finished else packed,
            instances=Instances(
                np.tile(batch.sample_ids, copies), np.repeat(self._copies, samples), keys
            ),
            replaced=np.array(list(batch.replaced.items()), np.int64).reshape(-1, 2),
            sha256=batch.sha256() if self._traced else "",
        )


def make_pipeline(
    config: Config,
    source: Source,
    maker: InstanceMaker,
    *,
    layout: Layout,
    rank: int,
    channel: Channel,
    sharing: int,
    workers: Workers,
    readers: Workers | None,
    first: int,
    last: int,
    finished: bool = False,
) -> InputPipeline:
    """The input of a rank's steps `first` … `last`-1; whoever makes it closes or abandons it.

    Args:
        config: of the run.
        source: of its training samples.
        maker: makes instances of samples, the task.
        layout: of the ranks.
        rank: this one.
        channel: of the group, for this pipeline alone.
        sharing: ranks of this node.
        workers: threads that augment.
        readers: threads that read and decode; None for one.
        first: step to begin with, from 0.
        last: step to end before.
        finished: give tensors that are ready for the network, where no step finishes them.
    """
    placement, seed = config.placement, config.run.seed
    order = order_of(config, source.info)
    reader = GroupReader(
        source,
        GroupSampler(len(source), seed, layout, layout.group(rank), order=order),
        channel,
        mode_of(config),
        first=first,
        last=last,
        prefetch=placement.prefetch,
        workers=readers,
        sharing=sharing,
    )
    return InputPipeline(
        reader,
        maker,
        layout,
        rank=rank,
        seed=seed,
        workers=workers,
        traced=config.run.trace,
        finished=finished,
    )


@contextmanager
def open_pipeline(
    config: Config,
    source: Source,
    maker: InstanceMaker,
    *,
    layout: Layout,
    comm: Comm,
    first: int,
    last: int,
) -> Iterator[InputPipeline]:
    """The input of a run's steps `first` … `last`-1, on the group's threads and communicator.

    Args:
        config: of the run.
        source: of its training samples.
        maker: makes instances of samples, the task.
        layout: of the ranks.
        comm: the world.
        first: step to begin with, from 0.
        last: step to end before.
    """
    with workers(io_threads(config, source)) as pool:
        pipeline = make_pipeline(
            config,
            source,
            maker,
            layout=layout,
            rank=comm.rank,
            channel=comm.group(layout),
            sharing=comm.node.size,
            workers=pool,
            readers=pool if source.stored else None,
            first=first,
            last=last,
        )
        try:
            yield pipeline
        except BaseException as error:
            if isinstance(error, UserError) and error.agreed:
                pipeline.close()
            else:
                pipeline.abandon()
            raise
        pipeline.close()


def choose_exchange(config: Config, source: Source, layout: Layout, comm: Comm) -> Exchange:
    """What the lanes of a group give each other, measured where there is a choice; collective.

    Args:
        config: of the run.
        source: of its training samples.
        layout: of the ranks.
        comm: the world.
    """
    with workers(io_threads(config, source) if source.stored else 1) as pool:
        return choose(mode_of(config), source, comm, layout, pool)


def mode_of(config: Config) -> ReadMode:
    """How the groups of a run read."""
    placement = config.placement
    return ReadMode(placement.io, placement.exchange, config.data.on_corrupt == "skip")


def io_threads(config: Config, source: Source) -> int:
    """Threads that read, decode and augment; several reads are in flight even on one core."""
    # Small images in memory keep Python's lock: two threads used 100 % of one core, not 200 %.
    default = max(4, runtime.cores()) if source.stored else 1
    return config.placement.io_threads or default
