"""Where an axis has its numbers."""

import math


def ticks_of(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers, 1, 2 or 5 apart, from `low` to `high`: at most `most`, and one at least."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, most - 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * f for f in (1, 2, 5, 10, 20) if unit * f >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)] or [low]


def ticks_of_log(low: float, high: float) -> list[float]:
    """Numbers from 10^low to 10^high: round ones, the closer the less there is between the ends.

    Over three decades and more there are powers of ten alone, eight at most.
    """
    if high - low < 0.5:
        found = ticks_of(10**low, 10**high, most=5)
    else:
        factors = (1, 1.5, 2, 3, 5, 7) if high - low < 1 else (1, 2, 5) if high - low < 3 else (1,)
        powers = range(math.floor(low), math.ceil(high) + 1)
        powers = powers[:: math.ceil(len(powers) / 8)]
        every = [factor * 10.0**power for power in powers for factor in factors]
        found = [tick for tick in every if low <= math.log10(tick) <= high]
    return found if len(found) > 1 else [10**low, 10**high]
