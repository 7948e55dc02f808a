"""The typed records that pass from the input to the step, and how a task makes instances."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ba_dist.data.sources import Workers
from ba_dist.rules.keys import Uint64s

Int64s = npt.NDArray[np.int64]
Array = npt.NDArray[Any]
Parameters = dict[str, Array]


@dataclass(frozen=True)
class Instances:
    """Which instances a rank holds; entry i of each array belongs to row i of the batch.

    Args:
        sample_ids: int64 [n], n = b·K.
        copies: int64 [n], the copy index m of each.
        keys: uint64 [n], from (seed, epoch, sample id, copy index).
    """

    sample_ids: Int64s
    copies: Int64s
    keys: Uint64s

    def as_dict(self) -> dict[str, list[Any]]:
        """As traces hold it, an entry for each instance."""
        return {
            "sample_ids": self.sample_ids.tolist(),
            "copies": self.copies.tolist(),
            "augment_keys": [f"{key:016x}" for key in self.keys],
        }


@dataclass(frozen=True)
class Batch:
    """What one rank trains on in a step.

    Args:
        step: since the start of training, from 0.
        epoch: it belongs to, from 0.
        inputs: name → array [n, …], as the task packs them; the step finishes them. For
            classification `images` uint8 [n, H, W, C], `labels` int64 [n], and what was drawn for
            the pixels that are still to be changed.
        instances: what the rows are.
        replaced: int64 [c, 2], pairs of a corrupt sample and the one in its place.
        sha256: digest of the group's batch before augmentation; empty where no trace is written.
    """

    step: int
    epoch: int
    inputs: Mapping[str, Any]
    instances: Instances
    replaced: Int64s
    sha256: str = ""


class InstanceMaker(Protocol):
    """How samples become instances, ready for the network; every task is one.

    Args:
        augmented: the input whose rows differ from copy to copy; traces hold its digests.
        sample_shape: of a decoded sample; 0 where a side varies.
    """

    augmented: str
    sample_shape: tuple[int, ...]

    def draw(self, keys: Uint64s, shapes: Int64s, ghost_batch: int) -> Parameters:
        """What is random of each instance, from its key alone.

        Args:
            keys: uint64 [n], every `ghost_batch` consecutive ones are a ghost batch.
            shapes: int64 [n, rank], the shape of each decoded sample.
            ghost_batch: instances in a ghost batch.
        """
        ...

    def allocate(self, count: int) -> Array:
        """Memory for the rendered rows of so many instances."""
        ...

    def render(self, sample: Array, drawn: Parameters, i: int, out: Array) -> None:
        """Writes row i, `out`, from its decoded sample. Several threads call it at a time."""
        ...

    def pack(self, rows: Array, labels: Int64s, drawn: Parameters) -> dict[str, Array]:
        """What goes to the device, from all rendered rows and their labels; arrays [n, …]."""
        ...

    def finish(self, packed: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs of the network, as tensors, from what `pack` gave.

        TensorFlow, in the step's graph; the same bits for a row alone, in a microbatch of whole
        ghost batches, and in a batch.
        """
        ...


def make(
    maker: InstanceMaker,
    samples: list[Array],
    labels: Int64s,
    keys: Uint64s,
    *,
    ghost_batch: int,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """The finished inputs of these instances, made at once.

    Args:
        maker: of the task.
        samples: the decoded sample of each instance.
        labels: int64 [n].
        keys: uint64 [n].
        ghost_batch: instances in a ghost batch.
        workers: threads that render; None to do it in this one.
    """
    return finish(
        maker,
        pack(maker, samples, labels, keys, ghost_batch=ghost_batch, workers=workers or Workers(1)),
    )


def pack(
    maker: InstanceMaker,
    samples: list[Array],
    labels: Int64s,
    keys: Uint64s,
    *,
    ghost_batch: int,
    workers: Workers,
) -> dict[str, Array]:
    """What goes to the device of these instances: what the pipeline makes ahead of the steps.

    Instance i is made of sample i modulo the number of samples: they come copy after copy.

    Args:
        maker: of the task.
        samples: decoded.
        labels: int64, of each sample.
        keys: uint64 [n].
        ghost_batch: instances in a ghost batch.
        workers: threads that render.
    """
    copies = len(keys) // len(samples)
    shapes = np.tile(np.array([sample.shape for sample in samples], np.int64), (copies, 1))
    drawn = maker.draw(keys, shapes, ghost_batch)
    rows = maker.allocate(len(keys))

    def render(i: int) -> None:
        maker.render(samples[i % len(samples)], drawn, i, rows[i])

    workers.map(render, list(range(len(keys))))
    return maker.pack(rows, np.tile(labels, copies), drawn)


def finish(maker: InstanceMaker, packed: Mapping[str, Any]) -> dict[str, Any]:
    """`maker.finish` outside of a graph, on the CPU also where there is a GPU.

    Operation by operation: TensorFlow's graph optimiser may change the order of operations, and
    an audit must find the same bits.
    """
    import tensorflow as tf

    with tf.device("/CPU:0"):
        return maker.finish({name: tf.convert_to_tensor(part) for name, part in packed.items()})
