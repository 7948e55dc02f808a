"""Stochastic gradient descent with momentum and weight decay.

    g ← ∇ + λ·w          on kernels; no λ on biases and BatchNorm
    v ← μ·v + g
    w ← w - η·v          (Nesterov: w - η·(g + μ·v))

Source: Sutskever et al. 2013, in the form of the authors' code, where η multiplies the velocity.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ba_dist.models.tags import DECAY, carries
from ba_dist.optim.rule import Hyperparameters, scaled


class SGD:
    """The update rule above.

    Args:
        variables: Keras variables to move; their tags say which are decayed.
        nesterov: look ahead.
        decays: whether λ is anything but 0.
    """

    def __init__(self, variables: Sequence[Any], nesterov: bool = False, decays: bool = True):
        self.variables = list(variables)
        self.nesterov = nesterov
        self.decays = decays
        self.slots = {
            f"velocity/{v.path}": tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False)
            for v in self.variables
        }

    def apply(
        self, gradients: Sequence[Any], hyper: Hyperparameters, scale: Any | None = None
    ) -> None:
        """Moves every variable by its gradient.

        Args:
            gradients: one for each variable, of its shape.
            hyper: `learning_rate` η, `momentum` μ and `weight_decay` λ, scalars.
            scale: of all gradients, a scalar; None for 1.
        """
        done: list[Any] = []
        for variable, velocity, gradient in zip(
            self.variables, self.slots.values(), gradients, strict=True
        ):
            with tf.control_dependencies(done):
                done = [self._move(variable, velocity, scaled(gradient, scale), hyper)]

    def _move(self, variable: Any, velocity: Any, gradient: Any, hyper: Hyperparameters) -> Any:
        rate, momentum, decay = (
            tf.cast(hyper[name], gradient.dtype)
            for name in ("learning_rate", "momentum", "weight_decay")
        )
        decay = decay if self.decays and carries(variable, DECAY) else None
        rate, gradient = self._direction(variable, gradient, rate=rate, decay=decay)
        # One kernel, and not a chain of additions: TensorFlow's graph optimiser would sum a
        # chain in an order that depends on the rest of the graph.
        return tf.raw_ops.ResourceApplyMomentum(
            var=variable.value.handle,
            accum=velocity.handle,
            lr=rate,
            grad=gradient,
            momentum=momentum,
            use_nesterov=self.nesterov,
        )

    def _direction(
        self, variable: Any, gradient: Any, *, rate: Any, decay: Any | None
    ) -> tuple[Any, Any]:
        """η, which multiplies the velocity, and g, which is added to it; λ None: no decay."""
        return rate, gradient if decay is None else gradient + decay * variable.value
