"""The gradient of one rank's own instances, before any sum over ranks: forward and backward pass.

    Σ_microbatches ∇ Σ_rows ℓ

A rank sums over its instances microbatch by microbatch. What a layer cannot see in its input
(keys, rows, what the step says) is told around the forward pass (`models/layers/microbatch.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ba_dist.data.batch import Batch
from ba_dist.models.layers.microbatch import microbatch
from ba_dist.models.precision import Precision
from ba_dist.rules.keys import copy_keys
from ba_dist.rules.layout import Layout, microbatches
from ba_dist.tasks import Task


class LocalGradient:
    """Loss and gradient of this rank's instances.

    Args:
        task: whose loss is differentiated.
        model: Keras model.
        layout: of the ranks.
        precision: of the model.
        loss_scale: variable that the loss is multiplied by.
        seed: of the run, for what is drawn once for a copy in a step.
        forward: computes as the model does in training; default the model itself.
        told: hyperparameters of a step that layers see: `drop_path`, the share of edges that are
            zeroed; `manifold_layer`, where activations are mixed; `carry`, whether a state goes on.
    """

    def __init__(
        self,
        task: Task,
        model: Any,
        *,
        layout: Layout,
        precision: Precision,
        loss_scale: Any,
        seed: int = 0,
        forward: Any = None,
        told: Sequence[str] = (),
    ):
        self._task, self._model, self._forward = task, model, forward or model
        self._layout, self._dtype = layout, precision.variables
        self._loss_scale, self._seed = loss_scale, seed
        self._told = {name: tf.Variable(0.0, trainable=False) for name in told}
        self._alone = tf.function(self.sums, reduce_retracing=True, autograph=False)

    def tell(self, hyper: Mapping[str, float]) -> None:
        """What layers see of a step, before its graph runs."""
        for name, variable in self._told.items():
            variable.assign(hyper[name])

    def tensors(self, batch: Batch) -> dict[str, Any]:
        """What a batch holds, and the keys of its instances beside it; of its copies where a layer
        drops weights, as those do that keep a state."""
        tensors = {**batch.inputs, "keys": batch.instances.keys}
        if "carry" in self._told:
            tensors["copy_keys"] = copy_keys(self._seed, batch.step, batch.instances.copies)
        return {name: tf.convert_to_tensor(tensor) for name, tensor in tensors.items()}

    def rows(self, tensors: dict[str, Any]) -> int:
        """Rows of a microbatch. The loss is divided by them before the backward pass, so that
        gradients of half precision are as large as those of a mean, and multiplied after it.
        """
        sizes = microbatches(tensors["keys"].shape[0], self._layout.ghost_batch)
        return max(size for size in sizes if size <= self._layout.microbatch)

    def sums(
        self, tensors: dict[str, Any], start: Any, apart: bool = False
    ) -> tuple[list[Any], list[Any]]:
        """(loss, weight and metrics, gradients of the scaled loss / rows): sums over this rank's
        microbatches, of which the first row is instance `start`.

        Gradients leave a loop when it has ended. With `apart` the last microbatch is outside of it,
        so that they are there one by one, at the price of building a network twice. The order of
        the sums is the same.
        """
        size = self.rows(tensors)
        count = tensors["keys"].shape[0] // size
        if count == 1:
            return self._microbatch(tensors, tf.constant(True), start, 1)
        parts = {n: tf.reshape(t, (count, size, *_sides(t))) for n, t in tensors.items()}

        def add(
            part: dict[str, Any], i: Any, totals: Any, sums: Sequence[Any]
        ) -> tuple[Any, list[Any]]:
            part_totals, gradients = self._microbatch(part, i == 0, start + i * size, count)
            added = [total + part for total, part in zip(sums, gradients, strict=True)]
            return totals + tf.stack(part_totals), added

        def in_loop(i: Any, totals: Any, *sums: Any) -> list[Any]:
            totals, added = add({n: t[i] for n, t in parts.items()}, i, totals, sums)
            return [i + 1, totals, *added]

        turns = count - 1 if apart else count
        totals = tf.zeros(2 + 2 * len(self._task.metrics), self._dtype)
        zeros = [tf.zeros(v.shape, v.dtype) for v in self._model.trainable_variables]
        i, totals, *sums = tf.while_loop(
            lambda i, *_: i < turns,
            in_loop,
            [tf.constant(0), totals, *zeros],
            parallel_iterations=1,
            maximum_iterations=turns,
        )
        if apart:
            # After the loop, or both would need memory at the same time.
            with tf.control_dependencies([totals, *sums]):
                part = {n: tf.identity(t[turns]) for n, t in parts.items()}
            totals, sums = add(part, i, totals, sums)
        return tf.unstack(totals), sums

    def of_copies(self, tensors: dict[str, Any]) -> Iterator[tuple[npt.NDArray[Any], float]]:
        """(gradient [parameters], weight) of the loss of each copy of this rank, summed."""
        samples = self._layout.group_batch
        for start in range(0, self._layout.instances_per_rank, samples):
            part = {name: tensor[start : start + samples] for name, tensor in tensors.items()}
            gradients, weight = self.only_looked_at(part, start)
            flat = tf.concat([tf.reshape(g, [-1]) for g in gradients], axis=0)
            yield flat.numpy() * (self.rows(part) / float(self._loss_scale.numpy())), weight

    def only_looked_at(self, tensors: dict[str, Any], start: int = 0) -> tuple[list[Any], float]:
        """The gradients of `sums` of these rows, and their weight; what has moved is put back."""
        moving = [v.value for v in self._model.non_trainable_variables]
        before = [tf.identity(variable) for variable in moving]
        (_, weight, *_), gradients = self._alone(tensors, tf.constant(start))
        for variable, value in zip(moving, before, strict=True):
            variable.assign(value)
        return gradients, float(weight.numpy())

    def is_finite(self, batch: Batch) -> bool:
        """Whether the gradient of a batch is finite; changes nothing."""
        gradients, _ = self.only_looked_at(self.tensors(batch))
        return bool(np.isfinite(tf.linalg.global_norm(gradients).numpy()))

    def _microbatch(
        self, tensors: Any, first: Any, start: Any, count: int
    ) -> tuple[list[Any], list[Any]]:
        batch = {"keys": tensors["keys"], **self._task.finish(tensors)}
        batch = {n: tf.cast(t, self._dtype) if t.dtype.is_floating else t for n, t in batch.items()}
        size = tensors["keys"].shape[0]
        seen = {
            "start": start,
            "keys": tensors["keys"],
            "copy_keys": tensors.get("copy_keys"),
            "ghost_batch": self._layout.ghost_batch,
            "carry": self._told.get("carry"),
            "drop_path": self._told.get("drop_path"),
            "manifold": self._manifold(tensors),
        }
        with tf.GradientTape() as tape, microbatch(first, count, **seen):
            loss = self._task.loss(self._forward, batch)
            scaled = loss.total * (tf.cast(self._loss_scale, loss.total.dtype) / size)
        weights = [v.value for v in self._model.trainable_variables]
        # That of an embedding has only the rows that were looked up: made whole for the sums.
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(scaled, weights)]
        pairs = [loss.metrics[name] for name in self._task.metrics]
        totals = [loss.total, loss.weight, *(number for pair in pairs for number in pair)]
        return [tf.cast(total, self._dtype) for total in totals], gradients

    def _manifold(self, tensors: Any) -> tuple[Any, Any, Any] | None:
        if "manifold_layer" not in self._told:
            return None
        partner, weight = (tensors[f"manifold_{name}"] for name in ("partner", "weight"))
        return self._told["manifold_layer"], partner, weight


def _sides(tensor: Any) -> list[int]:
    """The sides behind the axis of instances; -1 for one that varies from step to step."""
    return [-1 if side is None else side for side in tensor.shape[1:]]
