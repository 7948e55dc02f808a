"""Group reader → augmented instances, ready for the network, made ahead in a thread."""

import atexit
import functools
import hashlib
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ba_dist import runtime
from ba_dist.comm import Comm
from ba_dist.config import Augment, Config
from ba_dist.data.augment import Augmentation
from ba_dist.data.group.group_reader import GroupBatch, GroupReader
from ba_dist.data.group.record_exchange import ReadMode
from ba_dist.data.sources import ArraySource, DatasetInfo, Source, Workers, workers
from ba_dist.errors import ConfigError, UserError
from ba_dist.rules.keys import augmentation_keys
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import GroupSampler, shuffle


class InputPipeline:
    """The instances of one rank, a step at a time; one batch lies ready.

    Instance i = k·b + s is sample s of the group's batch in the copy l·K + k: consecutive instances
    are different samples with the same copy index, as ghost batches need them.

    A thread of its own makes them, not tf.data, because it must be known to have ended before the
    memory that it reads from is given back.

    Args:
        reader: the batches of the group; the pipeline closes it.
        augmentation: how copies are made.
        layout: of the ranks.
        rank: this one.
        seed: of the run.
        workers: threads that augment.
        smoothing: of labels.
        traced: also give a digest of the batch.
    """

    def __init__(
        self,
        reader: GroupReader,
        augmentation: Augmentation,
        layout: Layout,
        rank: int,
        seed: int,
        workers: Workers | None = None,
        smoothing: float = 0.0,
        traced: bool = False,
    ):
        self._reader = reader
        self._augmentation = augmentation
        self._copies = np.array(layout.copies(rank))
        self._seed = seed
        self._layout = layout
        self._workers = workers or Workers(1)
        self._smoothing = smoothing
        self._traced = traced
        self._changed = threading.Condition()
        self._ready: dict[str, Any] | None = None
        self._over = self._closed = False
        self._one_closes = threading.Lock()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._make_all, name="augment", daemon=True)
        self._thread.start()
        # A script may end without having closed what it left early.
        atexit.register(self.close)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Dictionaries of `step`, `epoch`, `images` float32 [b·K, H, W, C], `labels` int64 [b·K],
        or float32 [b·K, classes] where they are mixed or smoothed, `sample_ids`, `copies` int64,
        `keys` uint64 [b·K], and `replaced` int64 [n, 2], pairs of a corrupt sample and the one in
        its place. Images and labels are tensors, the rest numpy arrays and numbers.

        Raises the error that ended the reading.
        """
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

    def _element(self, batch: GroupBatch) -> dict[str, Any]:
        copies, samples = len(self._copies), len(batch.sample_ids)
        keys = augmentation_keys(
            self._seed, batch.epoch, batch.sample_ids[None, :], self._copies[:, None]
        ).reshape(-1)
        sizes = np.array([image.shape[:2] for image in batch.images], np.int64)
        drawn = self._augmentation.draw(keys, np.tile(sizes, (copies, 1)), self._layout.ghost_batch)
        images = np.empty((len(keys), *self._augmentation.image_shape), np.uint8)

        def render(i: int) -> None:
            self._augmentation.render(batch.images[i % samples], drawn, i, images[i])

        self._workers.map(render, list(range(len(keys))))
        finishing = self._augmentation.finish_parameters(drawn)
        finished, targets = self._finish(images, np.tile(batch.labels, copies), finishing)
        return {
            "step": batch.step,
            "epoch": batch.epoch,
            "images": finished,
            "labels": targets,
            "sample_ids": np.tile(batch.sample_ids, copies),
            "copies": np.repeat(self._copies, samples),
            "keys": keys,
            "replaced": np.array(list(batch.replaced.items()), np.int64).reshape(-1, 2),
            "batch_sha256": batch.sha256() if self._traced else "",
        }

    def _finish(self, images: Any, labels: Any, parameters: dict[str, Any]) -> tuple[Any, Any]:
        # Operation by operation, and on the CPU also where there is a GPU: TensorFlow's graph
        # optimiser changes the order of sums, and `audit` makes the same bits again.
        with tf.device("/CPU:0"):
            labels = tf.constant(labels)
            images = self._augmentation.finish(images, parameters)
            return images, self._augmentation.targets(labels, parameters, self._smoothing)


@contextmanager
def open_pipeline(
    config: Config, layout: Layout, comm: Comm, source: Source, augmentation: Augmentation,
    first: int, last: int,
) -> Iterator[InputPipeline]:  # fmt: skip
    """The input of a run's steps `first` … `last`-1, on the group's threads and communicator."""
    placement, data, seed = config.placement, config.data, config.run.seed
    order = shuffle(data.shuffle, data.shuffle_block, data.shuffle_window)
    sampler = GroupSampler(len(source), seed, layout, layout.group(comm.rank), order=order)
    mode = ReadMode(placement.io, placement.exchange, data.on_corrupt == "skip")
    with workers(io_threads(config, source)) as pool:
        reader = GroupReader(
            source,
            sampler,
            comm.group(layout),
            mode,
            first=first,
            last=last,
            prefetch=placement.prefetch,
            workers=pool if source.stored else None,
            sharing=comm.node.size,
        )
        pipeline = InputPipeline(
            reader, augmentation, layout, comm.rank, seed, pool,
            config.optimizer.label_smoothing, config.run.trace,
        )  # fmt: skip
        try:
            yield pipeline
        except BaseException as error:
            if isinstance(error, UserError) and error.agreed:
                pipeline.close()
            else:
                pipeline.abandon()
            raise
        pipeline.close()


def io_threads(config: Config, source: Source) -> int:
    """Threads that read, decode and augment; several reads are in flight even on one core."""
    # Small images in memory keep Python's lock: two threads used 100 % of one core, not 200 %.
    default = max(4, runtime.cores()) if source.stored else 1
    return config.placement.io_threads or default


def trace_entry(batch: dict[str, Any], group: int, lane: int) -> dict[str, Any]:
    """One line of a rank's trace: what it trained on in a step, an entry an instance."""
    images = batch["images"].numpy()
    return {
        "step": batch["step"],
        "epoch": batch["epoch"],
        "group": group,
        "lane": lane,
        **instances(batch),
        "batch_sha256": batch["batch_sha256"],
        "replaced": {str(old): new for old, new in batch["replaced"].tolist()},
        "instance_sha256": [hashlib.sha256(image).hexdigest()[:16] for image in images],
    }


def instances(batch: dict[str, Any]) -> dict[str, Any]:
    """What the instances of a batch are: an entry each of sample, copy and key."""
    return {
        "sample_ids": batch["sample_ids"].tolist(),
        "copies": batch["copies"].tolist(),
        "augment_keys": [f"{key:016x}" for key in batch["keys"]],
    }


@functools.cache
def _end_calmly() -> None:
    """Lets TensorFlow's threads leave Python before it ends: one that is inside hangs for ever.

    It takes an iterator down in such a thread, and nothing tells when that has gone. Pipelines are
    closed before this wait; with it 0 of 20 scripts hung at their end, without it 5 of 25.
    """
    atexit.register(time.sleep, 0.2)


def input_pipeline(
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike,
    comm: Comm,
    batch_size: int,
    multiplicity: int,
    steps: int,
    augment: Augment,
    seed: int = 0,
    ghost_batch_size: int = 32,
) -> Any:
    """Batch augmentation for a training script of one's own: replaces its input pipeline.

    The world is laid out in groups of gcd(M, W) ranks; a group trains on the same samples, each of
    its ranks on its own augmented copies. The gradient is the mean over the world, as ever.

    Args:
        images: uint8 [N, H, W, C], the same on every rank.
        labels: integers [N].
        comm: what `ba_dist.start()` gave.
        batch_size: B, distinct samples per step over all ranks.
        multiplicity: M, augmented copies of each.
        steps: how many; every rank takes all of them, or leaves after the same one as all others.
        augment: how copies differ.
        seed: of order and augmentation.
        ghost_batch_size: of the model's GhostBatchNormalization.

    Returns:
        A tf.data.Dataset of (images float32 [b·K, H, W, C], labels int64 [b·K], or float32
        [b·K, classes] with mixup or CutMix), `steps` long.
        Going through it again (an epoch of Keras) goes on with the next steps.

    Raises:
        ConfigError: naming the values that would work on these ranks.
    """
    _end_calmly()
    layout = Layout(comm.world_size, multiplicity, batch_size, ghost_batch_size=ghost_batch_size)
    if len(images) < batch_size:
        raise ConfigError(f"batch_size is {batch_size}, but there are only {len(images)} images")
    unit = images.reshape(-1, images.shape[-1])[:: max(1, images.size // 10**7)] / 255
    height, width, channels = images.shape[1:]
    info = DatasetInfo(
        "own",
        (height, width, channels),
        int(np.max(labels)) + 1,
        tuple(unit.mean(0)),
        tuple(unit.std(0)),
    )
    source = ArraySource(info, images, np.asarray(labels, np.int64), "own")
    sampler = GroupSampler(len(images), seed, layout, layout.group(comm.rank))
    channel = comm.group(layout)

    begun = itertools.count(0, steps)

    def instances() -> Iterator[tuple[Any, Any]]:
        # Each time that the dataset is gone through, training goes on `steps` further.
        first = next(begun)
        reader = GroupReader(source, sampler, channel, ReadMode(), first=first, last=first + steps)
        pipeline = InputPipeline(reader, Augmentation(augment, info), layout, comm.rank, seed)
        try:
            for batch in pipeline:
                yield batch["images"], batch["labels"]
        except GeneratorExit:  # left early, on every rank after the same step
            pipeline.close()
            raise
        except BaseException:
            pipeline.abandon()
            raise
        pipeline.close()

    rows = layout.instances_per_rank
    mixed = augment.mixup or augment.cutmix
    labels_spec = (
        tf.TensorSpec((rows, info.classes), tf.float32)
        if mixed
        else tf.TensorSpec((rows,), tf.int64)
    )
    return tf.data.Dataset.from_generator(
        instances,
        output_signature=(
            tf.TensorSpec((rows, *info.image_shape), tf.float32),
            labels_spec,
        ),
    )
