"""One synchronous step of any task: forward, loss, backward, allreduce, update.

    w ← update(w, g)    g = Σ_ranks Σ_microbatches ∇ Σ_rows ℓ / Σ weight

and g is brought to the norm of one copy's gradient, and clipped, if asked.

For classification a row is an instance of weight 1, so this is the paper's
1/(B·M) · Σ_copies Σ_samples ∇ℓ(w, T_m(x), y).

A rank sums over its own instances, microbatch by microbatch. Its gradients are then added up over
the world, in buckets that leave while the last microbatch still computes (`optim/world_sum.py`).
With the last bucket go the moving statistics of BatchNorm, the loss, its weight and the metrics,
the flags by which ranks agree, and a row of seconds of each rank (zeros in the rows of others, so
that the sum is a table). So no decision of a step costs a message of its own.

Source: "Augment Your Batch", section 2 (update rule) and 4.5 (decentralised synchronous SGD).
"""

import time
from collections.abc import Callable, Mapping, Sequence
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
from ba_dist.models.precision import Precision
from ba_dist.models.tags import INSTANCE, carries
from ba_dist.optim import UpdateRule
from ba_dist.optim.average import WeightAverage
from ba_dist.optim.flat import flat, flat_size, pieces
from ba_dist.optim.local_gradient import LocalGradient
from ba_dist.optim.norm_matching import NormMatching
from ba_dist.optim.world_sum import WorldSum
from ba_dist.rules.layout import Layout
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
        paces: float64 [phases, bins], how many ranks told which seconds; see `comm/vote.py`.
        compute_seconds: until the last of this rank's gradients was ready; others were on their
            way meanwhile.
        allreduce_seconds: that this rank waited after that for the sums over the world.
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
    paces: npt.NDArray[np.float64]
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
        matching: to the norm of one copy's gradient; `hyper` of a step says whether to measure.
        average: of the model's weights, moved after each update.
        seed: of the run.
        forward: computes as the model does in training; default the model itself.
        told: hyperparameters of a step that layers see; see `LocalGradient`.
        bucket_bytes: of gradients that travel together at most; 0 for all.
        wire: bf16 or fp16, what gradients are rounded to on their way; else they go as they are.
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
        matching: NormMatching | None = None,
        average: WeightAverage | None = None,
        seed: int = 0,
        forward: Any = None,
        told: Sequence[str] = (),
        bucket_bytes: int = 0,
        wire: str | None = None,
    ):
        self.task = task
        self.model = model
        self.rule = rule
        self.layout = layout
        self.comm = comm
        self.precision = precision
        self.clip_norm = clip_norm
        self.matching = matching
        self.average = average
        # What is small would be lost in fp16, be it in the network or on the wire.
        self._scaled = precision.scaled or wire == "fp16"
        self.loss_scale = tf.Variable(
            _INITIAL_SCALE if self._scaled else 1.0, trainable=False, dtype=tf.float32
        )
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._local = LocalGradient(
            task,
            model,
            layout=layout,
            precision=precision,
            loss_scale=self.loss_scale,
            seed=seed,
            forward=forward,
            told=told,
        )
        weights = [v.value for v in model.trainable_variables]
        self._world_sum = WorldSum(weights, comm, bucket_bytes=bucket_bytes, wire=wire)
        # Without autograph, whose reading of the source cost each rank over a second before its
        # first step: what branches or loops in the graph says so itself.
        self._step = tf.function(self._run, reduce_retracing=True, autograph=False)

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
        self._local.tell(hyper)
        tensors = self._local.tensors(batch)
        scalars = {name: tf.constant(value, tf.float64) for name, value in hyper.items()}
        if self.matching:
            copies = self._local.of_copies(tensors)
            norm = self.matching.norm_of_copies(copies) if hyper["measure"] else 0.0
            scalars["norm_of_copies"] = tf.constant(norm, tf.float64)
        numbers, row = self._step(tensors, scalars, tf.constant(tell(vote)))
        norm, finite, scale, loss, weight, *sums = numbers.numpy().tolist()
        (stop, save, corrupt), paces = hear(row.numpy())
        ended = time.perf_counter()
        alone = self.layout.world_size == 1
        clocks = (self._world_sum.ready_at, self._world_sum.summed_at)
        ready, summed = [ended if alone else float(at.numpy()) for at in clocks]
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
            paces=paces,
            compute_seconds=ready - begun,
            allreduce_seconds=summed - ready,
        )

    def is_finite_here(self, batch: Batch) -> bool:
        """Whether this rank's own gradient of a batch is finite; changes nothing."""
        return self._local.is_finite(batch)

    def copy_gradients(self, batch: Batch) -> npt.NDArray[Any]:
        """The mean gradient of each copy that this rank holds, before any sum; changes nothing.

        Args:
            batch: of this rank.

        Returns:
            [K, parameters] in the precision of the weights, row k of copy l·K + k.
        """
        copies = self._local.of_copies(self._local.tensors(batch))
        return np.stack([gradient / weight for gradient, weight in copies])

    def state(self) -> dict[str, Any]:
        """Name → variable of everything that all ranks hold alike and a resumed run needs."""
        return {
            **variables.alike(self.model),
            **self.rule.slots,
            **(self.matching.slots if self.matching else {}),
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

    def _run(self, tensors: Any, hyper: Any, row: Any) -> tuple[Any, Any]:
        moving = [v.value for v in self.model.non_trainable_variables if _is_statistic(v)]
        states = list(self.instance_state().values())
        before, states_before = ([tf.identity(v) for v in part] for part in (moving, states))
        loss_scale = tf.identity(self.loss_scale)
        apart = self.layout.world_size > 1 and len(self._world_sum.buckets) > 1
        totals, gradients = self._local.sums(tensors, tf.constant(0), apart)
        dtype = gradients[0].dtype
        totals, row = tf.cast(tf.stack(totals), dtype), tf.cast(row, dtype)
        gradients, length, means, totals, row = self._over_the_world(gradients, moving, totals, row)
        # The mean gradient is `scale` times these sums, which are not passed over for it.
        scale = self._local.rows(tensors) / (totals[1] * tf.cast(loss_scale, dtype))
        norm = length * scale
        finite = tf.math.is_finite(norm)
        if self.matching:
            scale *= self.matching.ratio(hyper["norm_of_copies"], norm, finite)
        self._update(gradients, hyper, self._clipped(scale, length), finite)
        self._settle(finite, moving, before, means)
        self._settle(finite, states, states_before, None)
        if self.average:
            _if(finite, self.average.move)
        numbers = [norm, tf.cast(finite, dtype), loss_scale, *tf.unstack(totals)]
        numbers = tf.stack([tf.cast(number, tf.float64) for number in numbers])
        return numbers, tf.cast(row, tf.float64)

    def _over_the_world(
        self, gradients: list[Any], moving: list[Any], totals: Any, row: Any
    ) -> tuple[list[Any], Any, Any, Any, Any]:
        """(sum of the gradients, its norm, flat means of the moving statistics, sums of totals and
        row); alone, no means.
        """
        if self.layout.world_size == 1:
            return gradients, tf.linalg.global_norm(gradients), None, totals, row
        flats, agreed = self._world_sum(gradients, [*moving, totals, row])
        behind = flat_size(moving)
        means = agreed[:behind] / self.layout.world_size
        totals, row = pieces(agreed[behind:], [totals.shape, row.shape])
        return self._world_sum.unpack(flats), tf.linalg.global_norm(flats), means, totals, row

    def _clipped(self, scale: Any, length: Any) -> Any:
        """The scale s, smaller where the mean gradient is longer than the threshold c.

            s · min(1, c / ‖s·g‖)

        The norm is that of the mean gradient over the world and all variables, so all ranks clip
        alike.

        Source: Pascanu et al. 2013, "On the difficulty of training recurrent neural networks".
        """
        if not self.clip_norm:
            return scale
        return scale * tf.minimum(tf.ones((), scale.dtype), self.clip_norm / (length * scale))

    def _update(self, gradients: list[Any], hyper: Any, scale: Any, finite: Any) -> None:
        """Moves the weights, but not by a gradient that is not finite (on all ranks alike)."""
        _if(finite, lambda: self.rule.apply(gradients, hyper, scale))
        if self._scaled:
            self._adapt_scale(finite)

    def _settle(self, finite: Any, moving: list[Any], before: list[Any], means: Any) -> None:
        """Moving statistics become their means over the world, or what they were before.

        Args:
            finite: whether the step's gradient is.
            moving: the statistics, which the forward pass has moved on this rank.
            before: what they were, a tensor each.
            means: over the world, as `flat` has them; None where this rank is alone.
        """
        if not moving:
            return
        if means is None:
            _if(~finite, lambda: _assign(moving, before))
        else:
            # One choice for all: a network has hundreds of them, and each operation has its price.
            chosen = tf.where(finite, means, flat(before))
            _assign(moving, pieces(chosen, [statistic.shape for statistic in before]))

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


def _assign(variables: list[Any], values: list[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")


def _is_statistic(variable: Any) -> bool:
    """Moving statistics; not the integers of Keras' seed generators, not the state of instances."""
    return str(variable.dtype).startswith("float") and not carries(variable, INSTANCE)
