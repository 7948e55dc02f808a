"""What an update rule is."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

# Name → value in a step, a scalar each: what the regime says.
Hyperparameters = Mapping[str, Any]


class UpdateRule(Protocol):
    """Moves the variables of a network by their gradients.

    `slots` is everything that the rule remembers, name → variable: it is saved with the weights.
    """

    slots: dict[str, Any]

    def apply(self, gradients: Sequence[Any], hyper: Hyperparameters) -> None:
        """Moves every variable.

        Args:
            gradients: one for each variable, of its shape.
            hyper: of this step; `hyperparameters` of the configuration makes them.
        """
        ...
