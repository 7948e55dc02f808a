"""Stochastic gradient descent with momentum and weight decay.

    g ← ∇ + λ·w          on kernels; no λ on biases and BatchNorm
    v ← μ·v + g
    w ← w - η·v          (Nesterov: w - η·(g + μ·v))

Source: Sutskever et al. 2013, in the form of the authors' code, where η multiplies the velocity.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

_NOT_DECAYED = ("bias", "beta", "gamma")


def is_decayed(path: str) -> bool:
    """Whether weight decay applies to the variable of this path: to kernels only."""
    return path.rsplit("/", 1)[-1] not in _NOT_DECAYED


class SGD:
    """The update rule above.

    Args:
        variables: Keras variables to move.
        momentum: μ.
        weight_decay: λ.
        nesterov: look ahead.
    """

    def __init__(
        self, variables: Sequence[Any], momentum: float, weight_decay: float, nesterov: bool = False
    ):
        self.variables = list(variables)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        self.slots = {
            f"velocity/{v.path}": tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False)
            for v in self.variables
        }

    def apply(self, gradients: Sequence[Any], learning_rate: Any) -> None:
        """Moves every variable by its gradient.

        Args:
            gradients: one a variable, same shapes.
            learning_rate: η, a scalar.
        """
        for variable, velocity, gradient in zip(
            self.variables, self.slots.values(), gradients, strict=True
        ):
            rate = tf.cast(learning_rate, gradient.dtype)
            if self.weight_decay and is_decayed(variable.path):
                gradient += self.weight_decay * variable.value
            # One kernel, and not a chain of additions: TensorFlow's graph optimiser would sum a
            # chain in an order that depends on the rest of the graph.
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.value.handle,
                accum=velocity.handle,
                lr=rate,
                grad=gradient,
                momentum=tf.constant(self.momentum, gradient.dtype),
                use_nesterov=self.nesterov,
            )
