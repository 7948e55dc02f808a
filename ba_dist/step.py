"""One synchronous step of any task: forward, loss, backward, one fused allreduce, update.

    w ← update(w, g)    g = Σ_ranks Σ_microbatches ∇ Σ_rows ℓ / Σ weight, clipped if asked

For classification a row is an instance of weight 1, so this is the paper's
1/(B·M) · Σ_copies Σ_samples ∇ℓ(w, T_m(x), y).

A rank sums over its own instances, microbatch by microbatch. One allreduce over the world then adds
up, in a single buffer: the gradients, the moving statistics of BatchNorm, the loss, its weight and
the metrics, the flags by which ranks agree, and a row of seconds of each rank (zeros in the rows of
others, so that the sum is a table). One buffer, so that the order of the sums is fixed and no
decision of a step costs a message of its own.

Source: "Augment Your Batch", section 2 (update rule) and 4.5 (decentralised synchronous SGD).
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ba_dist.comm import Comm
from ba_dist.comm.vote import Vote, hear, tell
from ba_dist.data.batch import Batch
from ba_dist.models import variables
from ba_dist.models.layers.microbatch import microbatch
from ba_dist.models.precision import Precision
from ba_dist.models.tags import INSTANCE, carries
from ba_dist.optim import UpdateRule
from ba_dist.optim.average import WeightAverage
from ba_dist.rules.keys import copy_keys
from ba_dist.rules.layout import Layout, microbatches
from ba_dist.tasks import Task

_INITIAL_SCALE = 2.0**15
_SCALE_GROWTH_STEPS = 2000


@dataclass(frozen=True)
class StepResult:
    """What came of a step; the same on every rank, but for the last two.

    Args:
        loss: mean over all instances of the step (over its units of weight).
        metrics: name → ratio over the whole step, as the task counts them.
        units: weight of the step: instances, or tokens.
        grad_norm: Euclidean norm of the mean gradient, before clipping.
        finite: False where the gradient was not, and the update was left out.
        loss_scale: that the step was computed with.
        stop: whether any rank wishes to stop.
        save: whether any rank wishes to save.
        corrupt: records that all ranks report together.
        seconds: float64 [W, phases] of each rank's step before.
        compute_seconds: that this rank took for its gradient.
        allreduce_seconds: that this rank waited for the sum over the world.
    """

    loss: float
    metrics: dict[str, float]
    units: float
    grad_norm: float
    finite: bool
    loss_scale: float
    stop: bool
    save: bool
    corrupt: int
    seconds: npt.NDArray[np.float64]
    compute_seconds: float
    allreduce_seconds: float


class TrainStep:
    """The step as one tf.function with the state that it moves on.

    Args:
        task: what is learned; its loss is differentiated.
        model: Keras model.
        rule: how weights move.
        layout: of the ranks.
        comm: the world.
        precision: of the model.
        clip_norm: norm to which a longer gradient is shortened; 0 is off.
        average: of the model's weights, moved after each update.
        drop_path: whether edges are zeroed at random; `hyper` of a step says what share.
        carry: whether layers keep a state; `hyper` of a step says whether it goes on (1) or
            begins anew (0).
        seed: of the run, for what is drawn once for a copy in a step.
    """

    def __init__(
        self,
        task: Task,
        model: Any,
        rule: UpdateRule,
        *,
        layout: Layout,
        comm: Comm,
        precision: Precision,
        clip_norm: float = 0.0,
        average: WeightAverage | None = None,
        drop_path: bool = False,
        carry: bool = False,
        seed: int = 0,
    ):
        self.task = task
        self.model = model
        self.rule = rule
        self.layout = layout
        self.comm = comm
        self.precision = precision
        self.clip_norm = clip_norm
        self.average = average
        self.loss_scale = tf.Variable(
            _INITIAL_SCALE if precision.scaled else 1.0, trainable=False, dtype=tf.float32
        )
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._drop_path = tf.Variable(0.0, trainable=False) if drop_path else None
        self._carry = tf.Variable(1.0, trainable=False) if carry else None
        self._seed = seed
        self._ready_at = tf.Variable(0.0, trainable=False, dtype=tf.float64)
        self._summed_at = tf.Variable(0.0, trainable=False, dtype=tf.float64)
        # Without autograph, whose reading of the source cost each rank over a second before its
        # first step: what branches or loops in the graph says so itself.
        self._step = tf.function(self._run, reduce_retracing=True, autograph=False)
        self._gradients = tf.function(self._accumulate, reduce_retracing=True, autograph=False)

    def __call__(
        self, batch: Batch, hyper: Mapping[str, float], vote: Vote | None = None
    ) -> StepResult:
        """Trains on this rank's instances; collective over the world.

        Args:
            batch: of this rank.
            hyper: what the update rule and the network need in this step, the same on every rank.
            vote: what this rank tells the others.
        """
        begun = time.perf_counter()
        vote = vote or Vote()
        if self._drop_path is not None:
            self._drop_path.assign(hyper["drop_path"])
        if self._carry is not None:
            self._carry.assign(hyper["carry"])
        scalars = {name: tf.constant(value, tf.float64) for name, value in hyper.items()}
        row = tell(vote, self.comm.rank, self.layout.world_size)
        numbers, row = self._step(self._tensors(batch), scalars, tf.constant(row))
        norm, finite, scale, loss, weight, *sums = numbers.numpy().tolist()
        (stop, save, corrupt), table = hear(row.numpy())
        ended = time.perf_counter()
        alone = self.layout.world_size == 1
        ready, summed = [
            ended if alone else float(at.numpy()) for at in (self._ready_at, self._summed_at)
        ]
        ratios = [_ratio(*pair) for pair in zip(sums[::2], sums[1::2], strict=True)]
        return StepResult(
            loss=_ratio(loss, weight),
            metrics=dict(zip(self.task.metrics, ratios, strict=True)),
            units=weight,
            grad_norm=norm,
            finite=finite > 0,
            loss_scale=scale,
            stop=stop > 0,
            save=save > 0,
            corrupt=round(corrupt),
            seconds=table,
            compute_seconds=ready - begun,
            allreduce_seconds=summed - ready,
        )

    def is_finite_here(self, batch: Batch) -> bool:
        """Whether this rank's own gradient of a batch is finite; changes nothing."""
        gradients = self._only_looked_at(self._tensors(batch))
        return bool(np.isfinite(tf.linalg.global_norm(gradients).numpy()))

    def copy_gradients(self, batch: Batch) -> npt.NDArray[Any]:
        """The mean gradient of each copy that this rank holds, before any sum; changes nothing.

        Args:
            batch: of this rank.

        Returns:
            [K, parameters] in the precision of the weights, row k of copy l·K + k.
        """
        copies, tensors = self.layout.copies_per_rank, self._tensors(batch)
        samples = self.layout.group_batch
        rows = []
        for copy in range(copies):
            start = copy * samples
            part = {name: tensor[start : start + samples] for name, tensor in tensors.items()}
            gradients = self._only_looked_at(part, start)
            flat = tf.concat([tf.reshape(g, [-1]) for g in gradients], axis=0)
            rows.append(flat.numpy() / float(self.loss_scale.numpy()))
        return np.stack(rows)

    def state(self) -> dict[str, Any]:
        """Name → variable of everything that all ranks hold alike and a resumed run needs."""
        return {
            **variables.alike(self.model),
            **self.rule.slots,
            **(self.average.slots if self.average else {}),
            "loss_scale": self.loss_scale,
            "good_steps": self.good_steps,
        }

    def averaged(self) -> AbstractContextManager[None]:
        """Inside of the block the network holds the average of its weights, if there is one."""
        return self.average.in_place() if self.average else nullcontext()

    def instance_state(self) -> dict[str, Any]:
        """Name → variable [b·K, …] that holds a row for each instance of this rank."""
        return variables.of_instances(self.model)

    def _tensors(self, batch: Batch) -> dict[str, Any]:
        """The inputs of a batch, and the keys of its instances and copies beside them."""
        instances = batch.instances
        keys = {
            "keys": instances.keys,
            "copy_keys": copy_keys(self._seed, batch.step, instances.copies),
        }
        tensors = {**batch.inputs, **keys}
        return {name: tf.convert_to_tensor(tensor) for name, tensor in tensors.items()}

    def _only_looked_at(self, tensors: dict[str, Any], start: int = 0) -> list[Any]:
        """Gradients of the mean over these rows, times the scale; what has moved is put back."""
        moving = [v.value for v in self.model.non_trainable_variables]
        before = [tf.identity(variable) for variable in moving]
        (_, weight, *_), gradients = self._gradients(tensors, tf.constant(start))
        for variable, value in zip(moving, before, strict=True):
            variable.assign(value)
        return [g * (self._rows(tensors) / tf.cast(weight, g.dtype)) for g in gradients]

    def _run(self, tensors: Any, hyper: Any, row: Any) -> tuple[Any, Any]:
        moving = [v.value for v in self.model.non_trainable_variables if _is_statistic(v)]
        kept = [*moving, *self.instance_state().values()]
        before = [tf.identity(variable) for variable in kept]
        scale = tf.identity(self.loss_scale)
        totals, gradients = self._accumulate(tensors, tf.constant(0))
        dtype = gradients[0].dtype
        totals, row = tf.cast(tf.stack(totals), dtype), tf.cast(row, dtype)
        gradients, moved, totals, row = self._over_the_world(gradients, moving, totals, row)
        factor = self._rows(tensors) / (totals[1] * tf.cast(scale, dtype))
        gradients, norm = self._mean(gradients, factor)
        finite = tf.math.is_finite(norm)
        self._update(self._clip(gradients, norm), hyper, finite)
        new = [*moved, *kept[len(moving) :]]
        for variable, value, old in zip(kept, new, before, strict=True):
            variable.assign(tf.where(finite, value, old))
        if self.average:
            _if(finite, self.average.move)
        numbers = [norm, tf.cast(finite, dtype), scale, *tf.unstack(totals)]
        numbers = tf.stack([tf.cast(number, tf.float64) for number in numbers])
        return numbers, tf.cast(row, tf.float64)

    def _rows(self, tensors: dict[str, Any]) -> int:
        """Rows of a microbatch. The loss is divided by them before the backward pass, so that
        gradients of half precision are as large as those of a mean, and multiplied after it.
        """
        sizes = microbatches(tensors["keys"].shape[0], self.layout.ghost_batch)
        return max(size for size in sizes if size <= self.layout.microbatch)

    def _accumulate(self, tensors: Any, start: Any) -> tuple[list[Any], list[Any]]:
        """(loss, weight and metrics, gradients of the scaled loss / rows): sums over this rank's
        microbatches, of which the first row is instance `start`.
        """
        size = self._rows(tensors)
        count = tensors["keys"].shape[0] // size
        if count == 1:
            return self._microbatch(tensors, tf.constant(True), start, 1)
        parts = {n: tf.reshape(t, (count, size, *_sides(t))) for n, t in tensors.items()}
        zeros = [tf.zeros(v.shape, v.dtype) for v in self.model.trainable_variables]

        def add(i: Any, totals: Any, *sums: Any) -> list[Any]:
            part = {name: tensor[i] for name, tensor in parts.items()}
            part_totals, gradients = self._microbatch(part, i == 0, start + i * size, count)
            added = [total + part for total, part in zip(sums, gradients, strict=True)]
            return [i + 1, totals + tf.stack(part_totals), *added]

        totals = tf.zeros(2 + 2 * len(self.task.metrics), self.precision.variables)
        _, totals, *sums = tf.while_loop(
            lambda i, *_: i < count,
            add,
            [tf.constant(0), totals, *zeros],
            parallel_iterations=1,
            maximum_iterations=count,
        )
        return tf.unstack(totals), sums

    def _microbatch(
        self, tensors: Any, first: Any, start: Any, count: int
    ) -> tuple[list[Any], list[Any]]:
        dtype = self.precision.variables
        batch = {n: tf.cast(t, dtype) if t.dtype.is_floating else t for n, t in tensors.items()}
        size = tensors["keys"].shape[0]
        with (
            tf.GradientTape() as tape,
            microbatch(
                first,
                count,
                start=start,
                keys=tensors["keys"],
                drop_path=self._drop_path,
                copy_keys=tensors["copy_keys"],
                ghost_batch=self.layout.ghost_batch,
                carry=self._carry,
            ),
        ):
            loss = self.task.loss(self.model, batch)
            scaled = loss.total * (tf.cast(self.loss_scale, loss.total.dtype) / size)
        weights = [v.value for v in self.model.trainable_variables]
        # That of an embedding has only the rows that were looked up: made whole for the sums.
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(scaled, weights)]
        pairs = [loss.metrics[name] for name in self.task.metrics]
        totals = [loss.total, loss.weight, *(number for pair in pairs for number in pair)]
        return [tf.cast(total, dtype) for total in totals], gradients

    def _over_the_world(
        self, gradients: list[Any], moving: list[Any], totals: Any, row: Any
    ) -> tuple[Any, list[Any], Any, Any]:
        """(sum of the gradients, means of the moving statistics, sums of totals and row).

        By one allreduce of one buffer. A network's gradients are too large for the cache, so they
        are passed over as few times as can be, and stay one flat buffer where there are ranks.
        """
        world = self.layout.world_size
        if world == 1:
            return gradients, moving, totals, row
        tensors = [*gradients, *moving, totals, row]
        buffer = self._sum(tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0))
        ends = np.cumsum(
            [_elements(part) for part in (gradients, moving, [totals], [row])]
        ).tolist()
        # Slices, not a split, which would copy all gradients once more.
        whole, moved, totals, row = (
            buffer[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)
        )
        return whole, _pieces(moved / world, moving), totals, row

    def _mean(self, gradients: Any, factor: Any) -> tuple[list[Any], Any]:
        """(gradients · factor, their norm), of a flat buffer or of a list."""
        if isinstance(gradients, list):
            gradients = [gradient * factor for gradient in gradients]
            return gradients, tf.linalg.global_norm(gradients)
        whole = gradients * factor
        norm = tf.sqrt(2 * tf.nn.l2_loss(whole))
        return _pieces(whole, [v.value for v in self.model.trainable_variables]), norm

    def _clip(self, gradients: list[Any], norm: Any) -> list[Any]:
        """g · min(1, c / ‖g‖) for the threshold c; the gradients as they are where c is 0.

        The mean gradient over the world, and its norm over all variables, so all ranks clip alike.

        Source: Pascanu et al. 2013, "On the difficulty of training recurrent neural networks".
        """
        if not self.clip_norm:
            return gradients
        share = tf.minimum(tf.ones((), norm.dtype), self.clip_norm / norm)
        return [gradient * share for gradient in gradients]

    def _sum(self, buffer: Any) -> Any:
        """The sum of a buffer over the world, timed: the one message of a step."""
        with tf.control_dependencies([buffer]):
            ready = self._ready_at.assign(_clock())
        with tf.control_dependencies([ready]):
            summed = self.comm.allreduce(tf.identity(buffer), name="step")
        with tf.control_dependencies([summed]):
            self._summed_at.assign(_clock())
        return summed

    def _update(self, gradients: list[Any], hyper: Any, finite: Any) -> None:
        """Moves the weights, but not by a gradient that is not finite (on all ranks alike)."""
        _if(finite, lambda: self.rule.apply(gradients, hyper))
        if self.precision.scaled:
            self._adapt_scale(finite)

    def _adapt_scale(self, finite: Any) -> None:
        """Halves the loss scale after an overflow, doubles it after many steps without one."""
        good = tf.where(finite, self.good_steps + 1, 0)
        grown = (good > 0) & (good % _SCALE_GROWTH_STEPS == 0)
        factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
        self.good_steps.assign(good)
        self.loss_scale.assign(tf.maximum(self.loss_scale * factor, 1.0))


def _if(condition: Any, work: Callable[[], None]) -> None:
    """Does some work in the graph, or nothing."""

    def done() -> Any:
        work()
        return tf.no_op()

    tf.cond(condition, done, tf.no_op)


def _clock() -> Any:
    # tf.timestamp refuses to work where operations must be deterministic.
    return tf.numpy_function(time.perf_counter, [], tf.float64)


def _pieces(buffer: Any, like: list[Any]) -> list[Any]:
    """A flat buffer cut into tensors of these shapes."""
    if not like:
        return []
    parts = tf.split(buffer, [t.shape.num_elements() for t in like])
    return [tf.reshape(part, t.shape) for part, t in zip(parts, like, strict=True)]


def _elements(tensors: list[Any]) -> int:
    return sum(tensor.shape.num_elements() for tensor in tensors)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")


def _sides(tensor: Any) -> list[int]:
    """The sides behind the axis of instances; -1 for one that varies from step to step."""
    return [-1 if side is None else side for side in tensor.shape[1:]]


def _is_statistic(variable: Any) -> bool:
    """Moving statistics; not the integers of Keras' seed generators, not the state of instances."""
    return str(variable.dtype).startswith("float") and not carries(variable, INSTANCE)
