"""What a task is: everything about a run that depends on what is learned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ba_dist.data.batch import Array, InstanceMaker, Int64s


class Loss(NamedTuple):
    """What a forward pass gives; every number is a sum, divided once after the allreduce.

        loss of the step = Σ total / Σ weight      gradient = ∇ Σ total / Σ weight

    over all microbatches and ranks. So a batch may hold tokens of which some are padding, mixed
    labels or an auxiliary head, and still every unit counts the same on any number of ranks.

    Args:
        total: scalar tensor, Σ of the loss.
        weight: scalar tensor, how much it is the sum of: instances, or tokens.
        metrics: name → (numerator, denominator), scalar tensors, both summed.
    """

    total: Any
    weight: Any
    metrics: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Field:
    """One array of a batch: its dtype, and its rank with the axis of instances."""

    dtype: str
    rank: int


class Task(InstanceMaker, Protocol):
    """Loss, metrics, unit, schema, instances and predictions of one kind of learning.

    Args:
        unit: what speed is counted in, and what the weight of a loss counts: images, tokens.
        schema: what a batch holds, name → field.
        metrics: of training, beside the loss: name → format to show it in.
        validation: metrics of evaluation: name → format, in the order they are shown in.
        judged_by: the one of them that says how good a network is: more of it is better,
        less_is_better: unless this says so.
        headline: that one in words.
        facts: what the builder of a network needs to know, by name.
        row_size: numbers that a row takes in an evaluation, about: its pixels, or its logits.
    """

    unit: str
    schema: Mapping[str, Field]
    metrics: Mapping[str, str]
    validation: Mapping[str, str]
    judged_by: str
    less_is_better: bool
    headline: str
    facts: Mapping[str, Any]
    row_size: int

    def loss(self, model: Any, batch: Mapping[str, Any]) -> Loss:
        """The loss of a network in training.

        Args:
            model: Keras model.
            batch: inputs as in the schema, and `keys` uint64 [n] of the instances.
        """
        ...

    def plain(self, sample: Array, out: Array) -> None:
        """Writes the row of a sample for evaluation, without augmentation."""
        ...

    def finish_plain(self, rows: Array, labels: Int64s) -> dict[str, Any]:
        """The inputs of the network for evaluation, from rows that `plain` wrote."""
        ...

    def predict(self, model: Any, batch: Mapping[str, Any]) -> Any:
        """What a network answers in evaluation, [n, …]; logits for classification."""
        ...

    def scores(self, answers: Any, batch: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Name → (numerator [n], denominator [n]) of each metric of evaluation, for each row."""
        ...

    def results(self, ratios: Mapping[str, float]) -> dict[str, float]:
        """What an evaluation tells, name → number, of Σ numerators / Σ denominators."""
        ...
