"""An optimizer of Keras that updates by the mean gradient of all ranks.

In a training step ranks tell each other everything by its message: gradients, moving statistics,
and whether one wishes to stop.
"""

import itertools
from typing import Any

import keras
import tensorflow as tf

from ba_dist.comm import Comm
from ba_dist.errors import ConfigError
from ba_dist.models.tags import INSTANCE, carries

_NUMBERS = itertools.count()  # of optimizers: each has a message of its own
_HALF = (tf.float16, tf.bfloat16)  # summed in float32: Horovod knows no bf16, and sums overflow


def distributed(optimizer: Any, comm: Comm) -> Any:
    """Makes an optimizer of Keras update by the mean gradient of all ranks.

        g = 1/W · Σ over ranks of g_r

    by one allreduce of one flat buffer for each dtype, before the optimizer does anything of its
    own with it: unscaling, clipping, accumulating, decay. A rank's gradient is that of its batch,
    so with batches of the same size the result is that of one process with all of them.

    The optimizer keeps its class, variables and configuration: it is saved as the plain one, and
    a model that it was compiled into is loaded without ba_dist. Compile a loaded model anew with
    `distributed(model.optimizer, comm)`.

    Args:
        optimizer: of Keras, or its name; a LossScaleOptimizer outside, not inside.
        comm: what `ba_dist.start()` gave.

    Returns:
        The same optimizer.

    Raises:
        ConfigError: when it is not an optimizer of Keras.
    """
    try:
        optimizer = keras.optimizers.get(optimizer)
    except ValueError:
        optimizer = None
    if optimizer is None:
        raise ConfigError(
            "ba_dist.distributed needs an optimizer of Keras, such as keras.optimizers.SGD(0.1)"
        )
    if not isinstance(optimizer.apply, WorldMean):
        optimizer.apply = WorldMean(optimizer.apply, comm)
    return optimizer


class WorldMean:
    """Takes the place of an optimizer's `apply`: the mean over the world first, then that.

    Args:
        apply: the optimizer's own.
        comm: the world.
    """

    def __init__(self, apply: Any, comm: Comm):
        if comm.world_size > 1:
            comm.together(comm.start_horovod)
        self.apply, self.comm = apply, comm
        self.stop = tf.Variable(0.0, trainable=False)  # whether this rank wishes to stop
        self.stopping = tf.Variable(0.0, trainable=False)  # how many have said so
        self.statistics: list[Any] = []  # averaged too
        self._before: list[Any] = []  # and what they were after the last step
        self._watches = False
        self._name = f"fit-{next(_NUMBERS)}"

    def __call__(self, grads: Any, trainable_variables: Any = None) -> Any:
        grads = list(grads)
        if self.comm.world_size > 1 and grads:
            grads = self._over_the_world(grads)
        return self.apply(grads, trainable_variables)

    def watch(self, statistics: list[Any]) -> bool:
        """Averages these variables from now on; whether a graph made before knows them not."""
        same = [id(v) for v in statistics] == [id(v) for v in self.statistics]
        if same and self._watches:
            return False
        self._before = [tf.Variable(v, trainable=False) for v in statistics]
        self.statistics, self._watches = statistics, True
        return True

    def begin(self) -> None:
        """Nobody wishes to stop; the statistics are those of all ranks."""
        self.stop.assign(0.0)
        self.stopping.assign(0.0)
        for old, variable in zip(self._before, self.statistics, strict=True):
            old.assign(variable)

    def _over_the_world(self, grads: list[Any]) -> list[Any]:
        there = [i for i, g in enumerate(grads) if g is not None]
        whole = [tf.convert_to_tensor(grads[i]) for i in there]  # embeddings give single rows
        # What has changed, not the values: those that stay keep every bit on any number of ranks.
        moved = [v - old for v, old in zip(self.statistics, self._before, strict=True)]
        sums = self._sum([tf.identity(self.stop), *whole, *moved])
        self.stopping.assign_add(sums[0])
        means = [total / self.comm.world_size for total in sums[1:]]
        for old, variable, change in zip(
            self._before, self.statistics, means[len(whole) :], strict=True
        ):
            variable.assign(old.assign_add(change))
        for i, mean in zip(there, means, strict=False):
            grads[i] = mean
        return grads

    def _sum(self, tensors: list[Any]) -> list[Any]:
        """Over the world, each in its dtype; by one message for each dtype of the gradients.

        The first tensor, a lone float32, goes along with the first dtype that there is.
        """
        kinds = [tf.float32 if t.dtype in _HALF else t.dtype for t in tensors]
        kinds[0] = kinds[1]
        sums: list[Any] = [None] * len(tensors)
        for kind in sorted(set(kinds), key=lambda dtype: dtype.name):
            chosen = [i for i, other in enumerate(kinds) if other == kind]
            parts = [tf.cast(tf.reshape(tensors[i], [-1]), kind) for i in chosen]
            buffer = self.comm.allreduce(tf.concat(parts, 0), name=f"{self._name}-{kind.name}")
            start = 0
            for i in chosen:  # slices, not a split, which would copy everything once more
                end = start + tensors[i].shape.num_elements()
                piece = tf.reshape(buffer[start:end], tensors[i].shape)
                sums[i], start = tf.cast(piece, tensors[i].dtype), end
        return sums


def mean_of(model: Any, comm: Comm) -> WorldMean:
    """The part of a compiled model's optimizer that speaks with the other ranks."""
    optimizer = model.optimizer
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None and isinstance(inner.apply, WorldMean):
        # Put there by `compile` for float16. Ranks that overflow do not call what is inside.
        del inner.apply
        distributed(optimizer, comm)
    found = getattr(optimizer, "apply", None)
    if not isinstance(found, WorldMean):
        raise ConfigError(
            "the optimizer knows nothing of the other ranks; compile the model with"
            " ba_dist.distributed(optimizer, comm)"
        )
    return found


def statistics_of(model: Any) -> list[Any]:
    """What layers that are trained hold beside their weights: moving statistics."""
    found: dict[int, Any] = {}
    for layer in model._flatten_layers():
        if layer.trainable:
            found |= {id(v): v for v in layer._non_trainable_variables if not carries(v, INSTANCE)}
    return [v.value for v in found.values() if v.value.dtype.is_floating]
