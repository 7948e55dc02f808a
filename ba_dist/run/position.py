"""Where a run is, as its checkpoints hold it."""

import math
from dataclasses import dataclass, field

from ba_dist.rules.layout import Layout


@dataclass
class Position:
    """Steps done, updates left out; sums and corrupt records of the epoch that is going on.

    `nonfinite` are the updates left out of which something was wrong; the others, in fp16, are how
    the scale of the loss is found. `ended` is the step at which an epoch was last ended: evaluated
    where that was due, and written down.
    """

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    ended: int = 0
    epoch_steps: int = 0
    epoch_loss: float = 0.0
    epoch_accuracy: float = 0.0
    seconds: float = 0.0
    corrupt: int = 0
    val: dict[str, float] = field(default_factory=dict)

    def counts(self, layout: Layout) -> dict[str, int]:
        """Updates, distinct samples and instances so far, counted apart."""
        samples = self.step * layout.batch_size
        return {
            "updates": self.step - self.skipped,
            "samples": samples,
            "instances": samples * layout.multiplicity,
        }

    def count(self, loss: float, accuracy: float) -> None:
        """Adds a step to the sums of the epoch; one whose loss is no number would spoil them."""
        if math.isfinite(loss):
            self.epoch_steps += 1
            self.epoch_loss += loss
            self.epoch_accuracy += accuracy

    def epoch_means(self) -> dict[str, float]:
        """Loss and accuracy of the epoch so far."""
        steps = max(1, self.epoch_steps)
        return {"loss": self.epoch_loss / steps, "accuracy": self.epoch_accuracy / steps}

    def begin_epoch(self) -> None:
        """The sums of an epoch begin anew."""
        self.corrupt = self.epoch_steps = 0
        self.epoch_loss = self.epoch_accuracy = 0.0
