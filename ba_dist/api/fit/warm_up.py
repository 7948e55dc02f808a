"""Learning rates that grow at first."""

from typing import Any

import keras

from ba_dist.errors import ConfigError
from ba_dist.rules.schedules import learning_rate as rate_of_step


class WarmUp(keras.callbacks.Callback):
    """Learning rates of the first epochs, step by step from rate / scale up to the rate.

        rate · (1/scale + (1 - 1/scale) · step / (epochs · steps an epoch))

    After that the rate is left alone.

    Args:
        learning_rate: to be reached.
        epochs: length.
        scale: how much larger than that of one rank the rate is; the world size, for a rate that
            was scaled linearly.

    Raises:
        ConfigError: when training begins, where the steps of an epoch are not known or the
            optimizer has a schedule.

    Source: Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.2 (gradual warm-up).
    """

    def __init__(self, learning_rate: float, epochs: float, scale: float):
        super().__init__()
        self.learning_rate, self.epochs, self.scale = learning_rate, epochs, scale
        self._first = 0  # step of the epoch
        self._warming = False

    def on_train_begin(self, logs: Any = None) -> None:
        if not self.params.get("steps"):
            raise ConfigError("WarmUp has to know the steps of an epoch; give fit steps_per_epoch")
        optimizer = self.model.optimizer
        try:
            optimizer.learning_rate = float(optimizer.learning_rate)
        except TypeError:
            raise ConfigError(
                "WarmUp sets learning rates, but the optimizer has a schedule;"
                " give it a number, or put the warm-up into the schedule"
            ) from None
        self._rate = rate_of_step(
            ((0.0, self.learning_rate),),
            self.params["steps"],
            warmup_steps=self.epochs * self.params["steps"],
            warmup_from=self.learning_rate / self.scale,
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._first = epoch * self.params["steps"]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        before = self._warming
        step = self._first + batch
        self._warming = step < self.epochs * self.params["steps"]
        if self._warming or before:
            self.model.optimizer.learning_rate = self._rate(step)
