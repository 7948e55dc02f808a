"""Where a run is, as its checkpoints hold it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ba_dist.rules.layout import Layout


@dataclass
class Position:
    """Steps done, updates left out; sums and corrupt records of the epoch that is going on.

    `nonfinite` are the updates left out of which something was wrong; the others, in fp16, are how
    the scale of the loss is found. `ended` is the step at which an epoch was last ended: evaluated
    where that was due, and written down. `best` is the best result of an evaluation that was
    kept with --keep-best, `best_step` its step. `judged` are the results of evaluations in
    order, as long as a mean of the weights waits for them (`--average-after`).
    """

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    ended: int = 0
    epoch_steps: int = 0
    epoch_loss: float = 0.0
    epoch_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    corrupt: int = 0
    best: float | None = None
    best_step: int = 0
    val: dict[str, float] = field(default_factory=dict)
    judged: list[float] = field(default_factory=list)

    def counts(self, layout: Layout) -> dict[str, int]:
        """Updates, distinct samples and instances so far, counted apart."""
        samples = self.step * layout.batch_size
        return {
            "updates": self.step - self.skipped,
            "samples": samples,
            "instances": samples * layout.multiplicity,
        }

    def count(self, loss: float, metrics: Mapping[str, float]) -> None:
        """Adds a step to the sums of the epoch; one whose loss is no number would spoil them."""
        if math.isfinite(loss):
            self.epoch_steps += 1
            self.epoch_loss += loss
            for name, value in metrics.items():
                self.epoch_metrics[name] = self.epoch_metrics.get(name, 0.0) + value

    def is_best(self, result: float | None, less_is_better: bool = False) -> bool:
        """Whether a result of an evaluation is better than any before; notes it if so.

        Args:
            result: None where it was not finite, as JSON holds it.
            less_is_better: of a task that is judged by a loss or a perplexity.
        """
        if result is None or not math.isfinite(result):
            return False
        sign = -1 if less_is_better else 1
        if self.best is not None and sign * result <= sign * self.best:
            return False
        self.best, self.best_step = result, self.step
        return True

    def no_longer_betters(
        self, result: float | None, evaluations: int, less_is_better: bool
    ) -> bool:
        """Whether a result is worse than the best of those more than `evaluations` before it; notes
        it.

        Args:
            result: None where it was not finite, as JSON holds it.
            evaluations: n of the source, "non-monotone interval".
            less_is_better: of a task that is judged by a loss or a perplexity.

        Source: Merity et al. 2018 (arXiv:1708.02182), algorithm 1.
        """
        if result is None or not math.isfinite(result):
            return False
        value = -result if less_is_better else result
        earlier = self.judged[: max(0, len(self.judged) - evaluations)]
        self.judged.append(value)
        return bool(earlier) and value < max(earlier)

    def epoch_means(self) -> dict[str, float]:
        """Loss and metrics of the epoch so far."""
        steps = max(1, self.epoch_steps)
        sums = {"loss": self.epoch_loss, **self.epoch_metrics}
        return {name: total / steps for name, total in sums.items()}

    def begin_epoch(self) -> None:
        """The sums of an epoch begin anew."""
        self.corrupt = self.epoch_steps = 0
        self.epoch_loss, self.epoch_metrics = 0.0, {}


def from_facts(facts: Mapping[str, Any]) -> Position:
    """The position that a checkpoint holds.

    Args:
        facts: its fields; those of version 0.1.0 had the one metric there was, `epoch_accuracy`.
    """
    fields = dict(facts)
    if (accuracy := fields.pop("epoch_accuracy", None)) is not None:
        fields["epoch_metrics"] = {"accuracy": accuracy}
    return Position(**fields)
