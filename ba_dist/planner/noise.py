"""Order statistics: how long the slowest of many ranks takes.

A rank's seconds are m · X with X log-normal, E[X] = 1 and relative deviation s: never negative, and
with a longer tail above than below, as steps have it. The slowest of W is

    E[max] = ∫ exp(μ + σz) · W φ(z) Φ(z)^(W-1) dz,    σ² = ln(1 + s²),  μ = -σ²/2

Source: David and Nagaraja 2003, "Order Statistics", section 2.1 (density of the largest).
"""

import math
from functools import cache

import numpy as np
import numpy.typing as npt

_Z = np.linspace(-9.0, 13.0, 4401)


def slowest(deviation: float, ranks: int) -> tuple[float, float]:
    """(mean, relative deviation) of the slowest of `ranks`, as a multiple of one rank's mean.

    Args:
        deviation: relative deviation s of one rank.
        ranks: W.
    """
    if deviation == 0 or ranks == 1:
        return 1.0, deviation
    sigma = math.sqrt(math.log1p(deviation**2))
    values = np.exp(sigma * _Z - sigma**2 / 2)
    log_density, log_cdf = _normal()
    weights = np.exp(log_density + math.log(ranks) + (ranks - 1) * log_cdf)
    weights /= weights.sum()
    mean = float(weights @ values)
    spread = float(weights @ (values - mean) ** 2)
    return mean, math.sqrt(spread) / mean


@cache
def _normal() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Logarithms of φ and Φ on the grid."""
    upper = [math.erfc(z / math.sqrt(2)) / 2 for z in _Z]
    lower = [math.erfc(-z / math.sqrt(2)) / 2 for z in _Z]
    cdf = [math.log(low) if z < 0 else math.log1p(-up)
           for z, low, up in zip(_Z.tolist(), lower, upper, strict=True)]  # fmt: skip
    return -(_Z**2) / 2 - math.log(2 * math.pi) / 2, np.array(cdf)
