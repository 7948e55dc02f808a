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
    """Marks activations that a step may mix: λ·x + (1-λ)·x of the partner.

    Partner and λ follow from the instance's key and its position in the ghost batch, and at which
    layer a step mixes from (seed, step). So the result is the same on any number of ranks and in
    any microbatch. A step that mixes at another layer, and evaluation, change nothing here.

    Args:
        number: of the layer, from 0 to `MANIFOLD_LAYERS` - 1.

    Call: x float [n, …]; returns the same shape and dtype.
    """

    def __init__(self, number: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.number = number

    def call(self, inputs: Any, training: bool = False) -> Any:
        now = current()
        if not training or now is None or now.manifold is None:
            return inputs
        chosen, partner, weight = now.manifold
        here = tf.equal(tf.cast(chosen, tf.int32), self.number)
        return tf.cond(here, lambda: mix_rows(inputs, partner, weight), lambda: inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "number": self.number}


def marked(x: Any, number: int, wanted: bool) -> Any:
    """x behind the layer of this number, in a network that is to have such layers."""
    return ManifoldMixup(number, name=f"manifold_mixup{number}")(x) if wanted else x
