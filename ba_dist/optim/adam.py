"""Adam, and AdamW, whose weight decay is no part of the gradient.

    g ← ∇ + λ·w                        Adam, on kernels; no λ on biases and BatchNorm
    m ← β1·m + (1-β1)·g
    v ← β2·v + (1-β2)·g²
    w ← w - η·λ·w                      AdamW, on kernels
    w ← w - η·m̂ / (√v̂ + ε)    m̂ = m / (1-β1^t),  v̂ = v / (1-β2^t)

t counts the updates from 1; one that is left out, for its gradient is not finite, does not count.

Sources: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1; Loshchilov
and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2, where the schedule of the
rate also scales the decay.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ba_dist.models.tags import DECAY, carries
from ba_dist.optim.rule import Hyperparameters, scaled


class Adam:
    """The update rule above.

    Args:
        variables: Keras variables to move; their tags say which are decayed.
        beta1: β1, the share of the old first moment that is kept.
        beta2: β2, the same of the second moment.
        epsilon: ε.
        decoupled: AdamW in place of Adam.
        decays: whether λ is anything but 0.
    """

    def __init__(
        self,
        variables: Sequence[Any],
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        decoupled: bool = False,
        decays: bool = True,
    ):
        self.variables = list(variables)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.decoupled, self.decays = decoupled, decays
        self._first, self._second = (
            {
                f"{moment}/{v.path}": tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False)
                for v in self.variables
            }
            for moment in ("first_moment", "second_moment")
        )
        self._updates = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.slots = {**self._first, **self._second, "updates": self._updates}

    def apply(
        self, gradients: Sequence[Any], hyper: Hyperparameters, scale: Any | None = None
    ) -> None:
        """Moves every variable by its gradient.

        Args:
            gradients: one for each variable, of its shape.
            hyper: `learning_rate` η and `weight_decay` λ, scalars.
            scale: of all gradients, a scalar; None for 1.
        """
        done: list[Any] = []
        count = tf.cast(self._updates.assign_add(1), tf.float64)
        powers = [tf.pow(tf.constant(b, tf.float64), count) for b in (self.beta1, self.beta2)]
        moments = zip(self._first.values(), self._second.values(), strict=True)
        for variable, gradient, pair in zip(self.variables, gradients, moments, strict=True):
            with tf.control_dependencies(done):
                gradient = scaled(gradient, scale)
                if self.decays and carries(variable, DECAY):
                    gradient = self._decay(variable, gradient, hyper)
                done = [self._move(variable, gradient, pair, powers, hyper["learning_rate"])]

    def _decay(self, variable: Any, gradient: Any, hyper: Hyperparameters) -> Any:
        """The gradient with its decay; AdamW decays the variable and leaves the gradient."""
        decay = hyper["weight_decay"]
        if not self.decoupled:
            return gradient + tf.cast(decay, gradient.dtype) * variable.value
        share = tf.cast(hyper["learning_rate"] * decay, gradient.dtype)
        variable.value.assign_sub(share * variable.value)
        return gradient

    def _move(self, variable: Any, gradient: Any, pair: Any, powers: Any, rate: Any) -> Any:
        # One kernel, as for SGD. It computes η·√(1-β2^t)/(1-β1^t) · m / (√v + ε'), which is the
        # rule above for ε' = ε·√(1-β2^t).
        numbers = {
            "beta1_power": powers[0],
            "beta2_power": powers[1],
            "lr": rate,
            "beta1": tf.constant(self.beta1, tf.float64),
            "beta2": tf.constant(self.beta2, tf.float64),
            "epsilon": self.epsilon * tf.sqrt(1 - powers[1]),
        }
        first, second = pair
        return tf.raw_ops.ResourceApplyAdam(
            var=variable.value.handle,
            m=first.handle,
            v=second.handle,
            grad=gradient,
            **{name: tf.cast(value, gradient.dtype) for name, value in numbers.items()},
        )
