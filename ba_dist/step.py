"""One step of synchronous SGD: forward, loss, backward, one fused allreduce, update.

    w ← update(w, 1/(B·M) · Σ_copies Σ_samples ∇ℓ(w, T_m(x), y))

A rank sums over its own instances, microbatch by microbatch. One allreduce over the world then adds
up, in a single buffer: the gradients, the moving statistics of BatchNorm, the loss and the count of
correct answers, the flags by which ranks agree, and a row of seconds of each rank (zeros in the
rows of others, so that the sum is a table). One buffer, so that the order of the sums is fixed and
no decision of a step costs a message of its own.

Source: "Augment Your Batch", section 2 (update rule) and 4.5 (decentralised synchronous SGD).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ba_dist.comm import Comm
from ba_dist.models.layers.ghost_batch_norm import accumulation
from ba_dist.optim.sgd import SGD
from ba_dist.rules.layout import Layout

_INITIAL_SCALE = 2.0**15
_SCALE_GROWTH_STEPS = 2000
# What ranks tell each other in every step, before the table of seconds.
_FLAGS = ("stop", "save", "corrupt")
# Columns of that table: waiting for input, reading this rank's part of it, computing, summing.
PHASES = ("wait", "input", "compute", "allreduce")


@dataclass(frozen=True)
class Precision:
    """Arithmetic of the network, of its variables, and whether the loss is scaled."""

    compute: str
    variables: str
    scaled: bool


PRECISIONS = {
    "fp32": Precision("float32", "float32", False),
    "bf16": Precision("mixed_bfloat16", "float32", False),
    "fp16": Precision("mixed_float16", "float32", True),
    "fp64": Precision("float64", "float64", False),
}


def set_precision(name: str) -> Precision:
    """Makes Keras build networks in this precision."""
    precision = PRECISIONS[name]
    keras.config.set_floatx(precision.variables)
    keras.config.set_dtype_policy(precision.compute)
    return precision


class TrainStep:
    """The step as one tf.function with the state that it moves on.

    Args:
        model: Keras model, images → logits.
        optimizer: the update rule.
        layout: of the ranks.
        comm: the world.
        precision: of the model.
    """

    def __init__(
        self, model: Any, optimizer: SGD, layout: Layout, comm: Comm, precision: Precision
    ):
        self.model = model
        self.optimizer = optimizer
        self.layout = layout
        self.comm = comm
        self.precision = precision
        self.loss_scale = tf.Variable(
            _INITIAL_SCALE if precision.scaled else 1.0, trainable=False, dtype=tf.float32
        )
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._ready_at = tf.Variable(0.0, trainable=False, dtype=tf.float64)
        self._summed_at = tf.Variable(0.0, trainable=False, dtype=tf.float64)
        # Without autograph, whose reading of the source cost each rank over a second before its
        # first step: what branches or loops in the graph says so itself.
        self._step = tf.function(self._run, reduce_retracing=True, autograph=False)
        self._gradients = tf.function(self._accumulate, reduce_retracing=True, autograph=False)

    def __call__(
        self,
        images: Any,
        labels: Any,
        learning_rate: float,
        stop: bool,
        save: bool = False,
        corrupt: int = 0,
        seconds: Sequence[float] = (),
    ) -> dict[str, Any]:
        """Trains on this rank's instances; collective over the world.

        Args:
            images: [b·K, H, W, C].
            labels: int64 [b·K], or float [b·K, classes] where they are mixed or smoothed.
            learning_rate: of this step.
            stop: whether this rank wishes to stop.
            save: whether this rank wishes that the state is saved after the step.
            corrupt: corrupt records that this rank reports.
            seconds: of this rank's last step, by `PHASES`, for all ranks to know.

        Returns:
            The same on every rank: `loss` and `accuracy` over all B·M instances, `grad_norm`,
            `stop` and `save` (whether any rank wishes it), `corrupt` (records that all ranks
            report),
            `finite` (False: the update was left out), `loss_scale` that the step was computed
            with, `seconds` [W, phases] of all ranks. And this
            rank's own `compute_seconds` and `allreduce_seconds` of this step.
        """
        begun = time.perf_counter()
        rate = tf.constant(learning_rate, tf.float64)
        told = tell((stop, save, corrupt), seconds, self.comm.rank, self.layout.world_size)
        numbers, told = self._step(images, labels, rate, tf.constant(told))
        loss, accuracy, norm, finite, scale = numbers.numpy().tolist()
        (stopped, saved, bad), table = hear(told.numpy())
        ended = time.perf_counter()
        alone = self.layout.world_size == 1
        ready, summed = [
            ended if alone else float(at.numpy()) for at in (self._ready_at, self._summed_at)
        ]
        return {
            "loss": loss,
            "accuracy": accuracy,
            "grad_norm": norm,
            "stop": stopped > 0,
            "save": saved > 0,
            "corrupt": round(bad),
            "finite": finite > 0,
            "loss_scale": scale,
            "seconds": table,
            "compute_seconds": ready - begun,
            "allreduce_seconds": summed - ready,
        }

    def is_finite_here(self, images: Any, labels: Any) -> bool:
        """Whether this rank's own gradient of these instances is finite; changes nothing."""
        moving = [v.value for v in self.model.non_trainable_variables]
        before = [tf.identity(variable) for variable in moving]
        _, gradients = self._gradients(images, labels)
        for variable, value in zip(moving, before, strict=True):
            variable.assign(value)
        return bool(np.isfinite(tf.linalg.global_norm(gradients).numpy()))

    def state(self) -> dict[str, Any]:
        """Name → variable of everything that a resumed run needs, but for the step number."""
        weights = {f"model/{v.path}": v.value for v in self.model.variables}
        return {
            **weights,
            **self.optimizer.slots,
            "loss_scale": self.loss_scale,
            "good_steps": self.good_steps,
        }

    def _run(self, images: Any, labels: Any, rate: Any, told: Any) -> tuple[Any, Any]:
        moving = [v.value for v in self.model.non_trainable_variables if _is_statistic(v)]
        before = [tf.identity(variable) for variable in moving]
        scale = tf.identity(self.loss_scale)
        totals, gradients = self._accumulate(images, labels)
        dtype = gradients[0].dtype
        others, told = [*moving, tf.cast(totals, dtype)], tf.cast(told, dtype)
        gradients, norm, (*moved, totals), told = self._over_the_world(gradients, others, told)
        finite = tf.math.is_finite(norm)
        self._update(gradients, rate, finite)
        for variable, value, old in zip(moving, moved, before, strict=True):
            variable.assign(tf.where(finite, value, old))
        numbers = [*tf.unstack(totals, 2), norm, tf.cast(finite, dtype), scale]
        numbers = tf.stack([tf.cast(number, tf.float64) for number in numbers])
        return numbers, tf.cast(told, tf.float64)

    def _accumulate(self, images: Any, labels: Any) -> tuple[Any, list[Any]]:
        """([loss, accuracy], gradients of the scaled loss): means over this rank's instances."""
        count = self.layout.microbatches
        if count == 1:
            return self._microbatch(images, labels, tf.constant(True))
        shape = (count, self.layout.microbatch)
        images = tf.reshape(images, (*shape, *images.shape[1:]))
        labels = tf.reshape(labels, (*shape, *labels.shape[1:]))
        zeros = [tf.zeros(v.shape, v.dtype) for v in self.model.trainable_variables]

        def add(i: Any, totals: Any, *sums: Any) -> list[Any]:
            part_totals, parts = self._microbatch(images[i], labels[i], i == 0)
            added = [total + part for total, part in zip(sums, parts, strict=True)]
            return [i + 1, totals + part_totals, *added]

        start = [tf.constant(0), tf.zeros(2, self.precision.variables), *zeros]
        _, totals, *sums = tf.while_loop(
            lambda i, *_: i < count, add, start, parallel_iterations=1, maximum_iterations=count
        )
        return totals / count, [total / count for total in sums]

    def _microbatch(self, images: Any, labels: Any, first: Any) -> tuple[Any, list[Any]]:
        images = tf.cast(images, self.precision.variables)
        with tf.GradientTape() as tape, accumulation(first, self.layout.microbatches):
            logits = self.model(images, training=True)
            loss = tf.reduce_mean(_cross_entropy(labels, logits))
            scaled = loss * tf.cast(self.loss_scale, loss.dtype)
        weights = [v.value for v in self.model.trainable_variables]
        gradients = tape.gradient(scaled, weights)
        classes = labels if labels.dtype.is_integer else tf.argmax(labels, 1)
        correct = tf.cast(tf.argmax(logits, 1) == classes, loss.dtype)
        return tf.stack([loss, tf.reduce_mean(correct)]), gradients

    def _over_the_world(
        self, gradients: list[Any], others: list[Any], told: Any
    ) -> tuple[list[Any], Any, list[Any], Any]:
        """(gradients of the unscaled loss, their norm, others, told): means, of `told` the sum.

        By one allreduce of one buffer. A network's gradients are too large for the cache, so they
        are passed over as few times as can be.
        """
        world = self.layout.world_size
        if world > 1:
            tensors = [*gradients, *others, told]
            buffer = tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)
            buffer = self._sum(buffer)
            length = sum(g.shape.num_elements() for g in gradients)
            end = buffer.shape.num_elements() - told.shape.num_elements()
            whole, rest = buffer[:length] * self._factor(buffer.dtype), buffer[length:end] / world
            norm = tf.sqrt(2 * tf.nn.l2_loss(whole))
            return _pieces(whole, gradients), norm, _pieces(rest, others), buffer[end:]
        if self.precision.scaled:
            gradients = [g * self._factor(g.dtype) for g in gradients]
        return gradients, tf.linalg.global_norm(gradients), others, told

    def _sum(self, buffer: Any) -> Any:
        """The sum of a buffer over the world, timed: the one message of a step."""
        with tf.control_dependencies([buffer]):
            ready = self._ready_at.assign(_clock())
        with tf.control_dependencies([ready]):
            summed = self.comm.allreduce(tf.identity(buffer), name="step")
        with tf.control_dependencies([summed]):
            self._summed_at.assign(_clock())
        return summed

    def _factor(self, dtype: Any) -> Any:
        """What makes a sum over the world the mean for the unscaled loss."""
        return 1 / (self.layout.world_size * tf.cast(self.loss_scale, dtype))

    def _update(self, gradients: list[Any], rate: Any, finite: Any) -> None:
        """Moves the weights, but not by a gradient that is not finite (on all ranks alike)."""

        def move() -> Any:
            self.optimizer.apply(gradients, rate)
            return tf.no_op()

        tf.cond(finite, move, tf.no_op)
        if self.precision.scaled:
            self._adapt_scale(finite)

    def _adapt_scale(self, finite: Any) -> None:
        """Halves the loss scale after an overflow, doubles it after many steps without one."""
        good = tf.where(finite, self.good_steps + 1, 0)
        grown = (good > 0) & (good % _SCALE_GROWTH_STEPS == 0)
        factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
        self.good_steps.assign(good)
        self.loss_scale.assign(tf.maximum(self.loss_scale * factor, 1.0))


def tell(
    flags: Sequence[float], seconds: Sequence[float], rank: int, world_size: int
) -> npt.NDArray[np.float64]:
    """What a rank tells the others in a step; the sum over the world is what `hear` takes apart.

    No Python lists: of 10^5 ranks they took 50 ms in every step, arrays 3 ms.

    Args:
        flags: by `_FLAGS`.
        seconds: of this rank's last step by `PHASES`, or none.
        rank: this one.
        world_size: W.

    Returns:
        [flags + W·phases], zeros in the rows of other ranks.
    """
    told = np.zeros(len(_FLAGS) + world_size * len(PHASES))
    told[: len(_FLAGS)] = flags
    if seconds:
        first = len(_FLAGS) + rank * len(PHASES)
        told[first : first + len(PHASES)] = seconds
    return told


def hear(told: npt.NDArray[np.float64]) -> tuple[list[float], npt.NDArray[np.float64]]:
    """(sums of the flags, table [W, phases] of seconds) of what all ranks have told."""
    return told[: len(_FLAGS)].tolist(), told[len(_FLAGS) :].reshape(-1, len(PHASES))


def _clock() -> Any:
    # tf.timestamp refuses to work where operations must be deterministic.
    return tf.numpy_function(time.perf_counter, [], tf.float64)


def _pieces(buffer: Any, like: list[Any]) -> list[Any]:
    """A flat buffer cut into tensors of these shapes."""
    parts = tf.split(buffer, [t.shape.num_elements() for t in like])
    return [tf.reshape(part, t.shape) for part, t in zip(parts, like, strict=True)]


def _cross_entropy(labels: Any, logits: Any) -> Any:
    if labels.dtype.is_integer:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)


def _is_statistic(variable: Any) -> bool:
    """Moving statistics, and not the integer state of Keras' seed generators."""
    return str(variable.dtype).startswith("float")
