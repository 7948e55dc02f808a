"""A moving average of the weights, which is evaluated and exported in place of the weights.

    a ← a - (1-d_t)·(a - w)    d_t = min(d, (1+t) / (10+t))

after each update, where t counts the updates before it. So the average follows the weights closely
at first: after t updates it looks back over about t/9 of them, until 1/(1-d) are fewer.

The moving statistics of BatchNorm are averaged in the same way: they belong to the weights that the
activations came from. Integers are not averaged, and neither is what differs from rank to rank.

Source: Polyak and Juditsky 1992 for the mean; the exponential one and its d_t as in TensorFlow's
ExponentialMovingAverage; statistics as in the authors' code of EfficientNet (Tan and Le 2019).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from ba_dist.models import variables


class WeightAverage:
    """The average above, of a network that training goes on with.

    `slots` is everything that it remembers, name → variable: it is saved with the weights.

    Args:
        model: Keras model, with the weights that the average begins with.
        decay: d.
    """

    def __init__(self, model: Any, decay: float):
        self.decay = decay
        self._weights = variables.to_average(model)
        self._averages = {
            name: tf.Variable(tf.identity(weight), trainable=False)
            for name, weight in self._weights.items()
        }
        self._updates = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.slots = {**self._averages, "average_updates": self._updates}

    def move(self) -> None:
        """Follows the weights, after an update."""
        count = tf.cast(self._updates, tf.float64)
        kept = tf.minimum(tf.constant(self.decay, tf.float64), (1 + count) / (10 + count))
        for name, average in self._averages.items():
            share = tf.cast(1 - kept, average.dtype)
            average.assign_sub(share * (average - self._weights[name]))
        self._updates.assign_add(1)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network holds the average inside of the block, and its weights again after it."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        # One variable after the other, so that no third copy of the network is needed.
        for name, average in self._averages.items():
            weight = tf.identity(self._weights[name])
            self._weights[name].assign(average)
            average.assign(weight)
