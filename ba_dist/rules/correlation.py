"""How alike two gradients are."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def pearson(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Pearson's correlation of two vectors over their entries, in float64.

        Σ_i (a_i - ā)·(b_i - b̄) / √(Σ_i (a_i - ā)² · Σ_i (b_i - b̄)²)

    Args:
        first: a, [parameters].
        second: b, the same.

    Returns:
        -1 … 1; NaN where one of them is constant.
    """
    a, b = (np.asarray(vector, np.float64) for vector in (first, second))
    a, b = a - a.mean(), b - b.mean()
    below = np.sqrt((a @ a) * (b @ b))
    return float(np.clip((a @ b) / below, -1.0, 1.0)) if below > 0 else float("nan")


@dataclass(frozen=True)
class Spread:
    """Where the correlations of many pairs lie.

    Args:
        median: of all that are a number.
        deviation: standard deviation of the same, with n - 1.
        undefined: pairs of which one gradient was zero or not finite.
    """

    median: float
    deviation: float
    undefined: int = 0


def spread(values: Floats) -> Spread:
    """Of correlations [pairs]."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Spread(float("nan"), float("nan"), len(values))
    deviation = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    return Spread(float(np.median(known)), deviation, len(values) - len(known))
