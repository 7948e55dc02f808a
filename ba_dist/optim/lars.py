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

from ba_dist.models.tags import ADAPT, carries
from ba_dist.optim.sgd import SGD


class LARS(SGD):
    """The update rule above, by the velocities of SGD.

    Args:
        variables: Keras variables to move; their tags say which are decayed and adapted.
        trust: τ, how far a layer moves as a share of its norm.
        decays: whether λ is anything but 0.
    """

    def __init__(self, variables: Sequence[Any], trust: float = 0.001, decays: bool = True):
        super().__init__(variables, decays=decays)
        self.trust = trust

    def _direction(
        self, variable: Any, gradient: Any, *, rate: Any, decay: Any | None
    ) -> tuple[Any, Any]:
        factor = rate
        if carries(variable, ADAPT):
            factor *= self._adapted(variable.value, gradient, decay)
        _, gradient = super()._direction(variable, gradient, rate=rate, decay=decay)
        return tf.ones_like(rate), factor * gradient

    def _adapted(self, weight: Any, gradient: Any, decay: Any | None) -> Any:
        """The factor a of a variable's rate."""
        length = tf.norm(weight)
        below = tf.norm(gradient)
        if decay is not None:
            below += decay * length
        usable = (length > 0) & (below > 0)
        one = tf.ones_like(length)
        return tf.where(usable, self.trust * length / tf.where(usable, below, one), one)
