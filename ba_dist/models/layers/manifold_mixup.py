"""Manifold mixup: in a step, the activations of one layer are mixed with those of partners.

Source: Verma et al. 2019, "Manifold Mixup: Better Representations by Interpolating Hidden States",
arXiv:1806.05236, section 2.
"""

from typing import Any

import keras
import tensorflow as tf

from ba_dist.data.augment.mixing import mix_rows
from ba_dist.models.layers.microbatch import current


@keras.saving.register_keras_serializable("ba_dist")
class ManifoldMixup(keras.layers.Layer):
    """A place in a network where a step may mix: λ·x + (1-λ)·x of the partner.

    Partner and λ follow from the instance's key and its position in the ghost batch, and which
    place it is from (seed, step). So the result is the same on any number of ranks and in any
    microbatch. A step that mixes elsewhere, and evaluation, leave the activations as they are.

    Args:
        point: which place this is, from 0 to `MANIFOLD_POINTS` - 1.

    Call: x float [n, …]; returns the same shape and dtype.
    """

    def __init__(self, point: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.point = point

    def call(self, inputs: Any, training: bool = False) -> Any:
        now = current()
        if not training or now is None or now.manifold is None:
            return inputs
        point, partner, weight = now.manifold
        here = tf.equal(tf.cast(point, tf.int32), self.point)
        return tf.cond(here, lambda: mix_rows(inputs, partner, weight), lambda: inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "point": self.point}


def mixed_at(x: Any, point: int, wanted: bool) -> Any:
    """The place `point` behind x, in a network that is to have such places."""
    return ManifoldMixup(point, name=f"manifold_mixup{point}")(x) if wanted else x
