"""What an update rule is."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

# Name → value in a step, a scalar each: what the regime says.
Hyperparameters = Mapping[str, Any]


class UpdateRule(Protocol):
    """Moves the variables of a network by their gradients.

    `slots` is everything that the rule remembers, name → variable: it is saved with the weights.

    A rule moves one variable after the other, and scales its gradient only then: a network's
    weights are too large for the cache, those of one variable are mostly not.
    """

    slots: dict[str, Any]

    def apply(
        self, gradients: Sequence[Any], hyper: Hyperparameters, scale: Any | None = None
    ) -> None:
        """Moves every variable.

        Args:
            gradients: one for each variable, of its shape.
            hyper: of this step; `hyperparameters` of the configuration makes them.
            scale: of all gradients, a scalar; None for 1.
        """
        ...


def scaled(gradient: Any, scale: Any | None) -> Any:
    """gradient · scale, or the gradient where there is none."""
    return gradient if scale is None else gradient * scale
