"""An average of the weights, which is evaluated and exported in place of the weights.

The moving average (`--ema`):

    a ← a - (1-d_t)·(a - w)    d_t = min(d, (1+t) / (10+t))

after each update, where t counts the updates before it. So the average follows the weights closely
at first: after t updates it looks back over about t/9 of them, until 1/(1-d) are fewer.

The plain mean from some moment on (`--average-after`):

    a ← a + (w - a) / max(1, t)

where t counts the updates since that moment, this one among them; before it a is w.

The moving statistics of BatchNorm are averaged in the same way: they belong to the weights that the
activations came from. Integers are not averaged, and neither is what differs from rank to rank.

Source: Polyak and Juditsky 1992 for the mean; the exponential one and its d_t as in TensorFlow's
ExponentialMovingAverage; statistics as in the authors' code of EfficientNet (Tan and Le 2019); the
mean as in NT-ASGD of Merity et al. 2018 (arXiv:1708.02182), section 3.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from ba_dist.models import variables

# Of the count of updates, where a mean has not begun.
_NOT_YET = -1


class WeightAverage:
    """One of the averages above, of a network that training goes on with.

    `slots` is everything that it remembers, name → variable: it is saved with the weights.

    Args:
        model: Keras model, with the weights that the average begins with.
        decay: d; None for the mean that `begin` begins.
    """

    def __init__(self, model: Any, decay: float | None):
        self.decay = decay
        self._weights = variables.to_average(model)
        self._averages = {
            name: tf.Variable(tf.identity(weight), trainable=False)
            for name, weight in self._weights.items()
        }
        first = _NOT_YET if decay is None else 0
        self._updates = tf.Variable(first, trainable=False, dtype=tf.int64)
        self.slots = {**self._averages, "average_updates": self._updates}

    def move(self) -> None:
        """Follows the weights, after an update."""
        if self.decay is None:
            self._move_mean()
            return
        count = tf.cast(self._updates, tf.float64)
        kept = tf.minimum(tf.constant(self.decay, tf.float64), (1 + count) / (10 + count))
        for name, average in self._averages.items():
            share = tf.cast(1 - kept, average.dtype)
            average.assign_sub(share * (average - self._weights[name]))
        self._updates.assign_add(1)

    def _move_mean(self) -> None:
        begun = self._updates != _NOT_YET
        count = self._updates.assign_add(tf.cast(begun, tf.int64))
        share = 1 / tf.cast(tf.maximum(count, 1), tf.float64)
        for name, average in self._averages.items():
            weight = self._weights[name]
            moved = average + tf.cast(share, average.dtype) * (weight - average)
            # Not by the sum above, which would round.
            average.assign(tf.where(count <= 1, weight, moved))

    @property
    def waits(self) -> bool:
        """Whether this is a mean that has not begun."""
        return self.decay is None and int(self._updates.numpy()) == _NOT_YET

    def begin(self) -> None:
        """The mean begins with the next update; the same moment on every rank."""
        self._updates.assign(0)

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
