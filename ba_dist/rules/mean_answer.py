"""What a network answers to a sample, of its answers to several copies of it."""

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Average = Literal["probabilities", "logits"]
Floats = npt.NDArray[np.float64]


class MeanAnswer:
    """The mean over copies of what a network answers to them, as logits; in float64.

        probabilities: z = z_0 + log(1/n · Σ_m p_m / p_0)    p_m = softmax(z_m)
        logits:        z = 1/n · Σ_m z_m

    So softmax(z) is the mean of the probabilities, and of one copy z is its logits, bit for bit.

    Args:
        average: of what.
    """

    def __init__(self, average: Average):
        self._average = average
        self._count = 0
        self._logits: npt.NDArray[np.float64] = np.empty((0, 0))
        self._shares = self._sum = self._logits

    def add(self, logits: npt.NDArray[Any]) -> None:
        """Those of one copy more, [n, classes]."""
        logits = logits.astype(np.float64)
        self._count += 1
        if self._average == "logits":
            self._sum = logits if self._count == 1 else self._sum + logits
            return
        shares = logits - np.logaddexp.reduce(logits, 1, keepdims=True)
        if self._count == 1:
            self._logits, self._shares = logits, shares
        # Where both are 0 their ratio is 1: a network may exclude a class by a logit of -∞.
        ratios = np.zeros_like(shares)
        np.subtract(shares, self._shares, out=ratios, where=shares != self._shares)
        self._sum = ratios if self._count == 1 else np.logaddexp(self._sum, ratios)

    def result(self) -> Floats:
        """z float64 [n, classes]."""
        if self._average == "logits":
            return self._sum / self._count
        return self._logits + (self._sum - math.log(self._count))
