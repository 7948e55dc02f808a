"""How sure a share of right answers is, and how much better one of two answers to the same is.

All intervals are of 95 %.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]

_Z = 1.959963984540054  # 97.5 % of the normal distribution lie below it

_SHARES = ("single", "tta", "difference", "error_removed")


@dataclass(frozen=True)
class Comparison:
    """Two answers to each of the same samples.

    Args:
        right: samples that both answered rightly.
        gained: that only the second answered rightly.
        lost: that only the first answered rightly.
        wrong: that both answered wrongly.
    """

    right: int
    gained: int
    lost: int
    wrong: int

    @property
    def samples(self) -> int:
        return self.right + self.gained + self.lost + self.wrong

    def as_dict(self) -> dict[str, Any]:
        """Both accuracies, their difference and the error removed, each with its interval."""
        first, second = self.right + self.lost, self.right + self.gained
        return {
            "single": first / self.samples,
            "single_interval": wilson(first, self.samples),
            "tta": second / self.samples,
            "tta_interval": wilson(second, self.samples),
            "difference": (self.gained - self.lost) / self.samples,
            "difference_interval": difference_interval(self),
            "gained": self.gained,
            "lost": self.lost,
            "error_removed": error_removed(self),
            "error_removed_interval": error_removed_interval(self),
        }


def compare(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Comparison:
    """Counts which of two answers were right, of one sample at least.

    Args:
        first: bool [N], whether the first answer to each sample was right.
        second: the same of the second one.
    """
    both = int((first & second).sum())
    gained, lost = int((~first & second).sum()), int((first & ~second).sum())
    return Comparison(both, gained, lost, len(first) - both - gained - lost)


def wilson(right: int, samples: int) -> Interval:
    """Wilson's score interval of a share p = right / samples.

        (p + z²/2n ± z·√(p·(1-p)/n + z²/4n²)) / (1 + z²/n)

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    share, ratio = right / samples, _Z * _Z / samples
    half = _Z * math.sqrt(share * (1 - share) / samples + ratio / (4 * samples))
    low, high = ((share + ratio / 2 + side) / (1 + ratio) for side in (-half, half))
    # Rounding must not put the share itself outside.
    return min(max(0.0, low), share), max(min(1.0, high), share)


def difference_interval(found: Comparison) -> Interval:
    """Of the second accuracy less the first one, from the samples that only one of them has right.

        g = gained + 1/2, l = lost + 1/2, n = samples + 2
        (g - l)/n ± z·√(g + l - (g - l)²/n) / n

    McNemar's normal interval with 1/2 more in each of the four counts. So it has a width also
    where nothing was gained or lost.

    Source: Agresti and Min 2005, "Simple improved confidence intervals for comparing matched
    proportions", Statistics in Medicine 24.
    """
    gained, lost, samples = found.gained + 0.5, found.lost + 0.5, found.samples + 2
    centre = (gained - lost) / samples
    half = _Z * math.sqrt(gained + lost - (gained - lost) * centre) / samples
    return max(-1.0, centre - half), min(1.0, centre + half)


def error_removed(found: Comparison) -> float | None:
    """(e1 - e2) / e1, the share of the first one's errors; None where it has none."""
    errors = found.wrong + found.gained
    return (found.gained - found.lost) / errors if errors else None


def error_removed_interval(found: Comparison) -> Interval | None:
    """Of 1 - e2/e1, normal in the logarithm of the ratio; None where the first has no error.

        log(E2/E1) ± z·√((gained + lost) / (E1·E2))    E errors, as counts

    with 1/2 more in each of the four counts, as for the difference.

    Source: Fagerland, Lydersen and Laake 2014, "Recommended tests and confidence intervals for
    paired binomial proportions", Statistics in Medicine 33 (the Wald interval of the ratio).
    """
    removed = error_removed(found)
    if removed is None:
        return None
    first, second = found.wrong + found.gained + 1, found.wrong + found.lost + 1
    half = _Z * math.sqrt((found.gained + found.lost + 1) / (first * second))
    low, high = (1 - second / first * math.exp(side) for side in (half, -half))
    return min(low, removed), max(high, removed)


def comparison_table(compared: Mapping[str, Comparison]) -> str:
    """The same for a person, a line for each accuracy."""
    heads = ("single crop", "copies", "difference", "error removed")
    lines = ["with 95 % intervals " + "".join(f"{head:>28}" for head in heads)]
    for name, found in compared.items():
        row = found.as_dict()
        cells = [
            _cell(row[key], row[f"{key}_interval"], sign)
            for key, sign in zip(_SHARES, ("", "", "+", ""), strict=True)
        ]
        lines.append(f"{name:20}" + "".join(f"{cell:>28}" for cell in cells))
    return "\n".join(lines)


def _cell(share: float | None, interval: Interval | None, sign: str) -> str:
    if share is None:
        return "-"
    if interval is None:
        return f"{share:{sign}.2%}"
    return f"{share:{sign}.2%} ({interval[0]:{sign}.2%}, {interval[1]:{sign}.2%})"
