"""Batch augmentation as the input pipeline of a script of one's own."""

import atexit
import functools
import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ba_dist.comm import Comm
from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation
from ba_dist.data.group.group_reader import GroupReader
from ba_dist.data.group.record_exchange import ReadMode
from ba_dist.data.pipeline import InputPipeline
from ba_dist.data.sources import ArraySource, ImageInfo
from ba_dist.errors import ConfigError
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import GroupSampler
from ba_dist.tasks.classification import Classification


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
    info = ImageInfo(
        "own",
        (height, width, channels),
        int(np.max(labels)) + 1,
        tuple(unit.mean(0)),
        tuple(unit.std(0)),
    )
    source = ArraySource(info, images, np.asarray(labels, np.int64), "own")
    sampler = GroupSampler(len(images), seed, layout, layout.group(comm.rank))
    channel = comm.group(layout)
    task = Classification(Augmentation(augment, info))

    begun = itertools.count(0, steps)

    def instances() -> Iterator[tuple[Any, Any]]:
        # Each time that the dataset is gone through, training goes on `steps` further.
        first = next(begun)
        reader = GroupReader(source, sampler, channel, ReadMode(), first=first, last=first + steps)
        pipeline = InputPipeline(reader, task, layout, rank=comm.rank, seed=seed)
        try:
            for batch in pipeline:
                yield batch.inputs["images"], batch.inputs["labels"]
        except GeneratorExit:  # left early, on every rank after the same step
            pipeline.close()
            raise
        except BaseException:
            pipeline.abandon()
            raise
        pipeline.close()

    rows = layout.instances_per_rank
    soft = task.schema["labels"].rank == 2
    labels_spec = (
        tf.TensorSpec((rows, info.classes), tf.float32)
        if soft
        else tf.TensorSpec((rows,), tf.int64)
    )
    return tf.data.Dataset.from_generator(
        instances,
        output_signature=(tf.TensorSpec((rows, *info.image_shape), tf.float32), labels_spec),
    )
