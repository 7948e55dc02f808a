"""LARS: stochastic gradient descent whose rate is adapted to each layer.

    g ← ∇ + λ·w                                    no λ on biases, BatchNorm, depthwise kernels
    a = τ·‖w‖ / (‖∇‖ + λ·‖w‖)                      of a kernel; 1 elsewhere, and where it is 0 or ∞
    v ← μ·v + η·a·g
    w ← w - v

The rate η is inside of the velocity, as in the paper: when it falls, the velocity still has the
larger steps of before. In the package's SGD it is outside.

Source: You, Gitman and Ginsburg 2017, "Large Batch Training of Convolutional Networks",
arXiv:1708.03888, equation 6 and algorithm 1, where τ is called η and η is γ. That biases and
BatchNorm are not adapted is usual, and not in the paper.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ba_dist.models.tags import ADAPT, DECAY, carries
from ba_dist.optim.rule import Hyperparameters


class LARS:
    """The update rule above.

    Args:
        variables: Keras variables to move; their tags say which are decayed and adapted.
        trust: τ, how far a layer moves as a share of its norm.
        decays: whether λ is anything but 0.
    """

    def __init__(self, variables: Sequence[Any], trust: float = 0.001, decays: bool = True):
        self.variables = list(variables)
        self.trust = trust
        self.decays = decays
        self.slots = {
            f"velocity/{v.path}": tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False)
            for v in self.variables
        }

    def apply(self, gradients: Sequence[Any], hyper: Hyperparameters) -> None:
        """Moves every variable by its gradient.

        Args:
            gradients: one for each variable, of its shape.
            hyper: `learning_rate` η, `momentum` μ and `weight_decay` λ, scalars.
        """
        for variable, velocity, gradient in zip(
            self.variables, self.slots.values(), gradients, strict=True
        ):
            rate, momentum, decay = (
                tf.cast(hyper[name], gradient.dtype)
                for name in ("learning_rate", "momentum", "weight_decay")
            )
            decays = self.decays and carries(variable, DECAY)
            decay = decay if decays else tf.zeros_like(decay)
            if carries(variable, ADAPT):
                rate *= self._adapted(variable.value, gradient, decay)
            if decays:
                gradient += decay * variable.value
            # One kernel, as for SGD, which multiplies the velocity by its rate: here it has it.
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.value.handle,
                accum=velocity.handle,
                lr=tf.ones_like(rate),
                grad=rate * gradient,
                momentum=momentum,
            )

    def _adapted(self, weight: Any, gradient: Any, decay: Any) -> Any:
        """The factor a of a variable's rate."""
        length = tf.norm(weight)
        below = tf.norm(gradient) + decay * length
        usable = (length > 0) & (below > 0)
        one = tf.ones_like(length)
        return tf.where(usable, self.trust * length / tf.where(usable, below, one), one)
