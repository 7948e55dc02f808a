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
    """Numbers 1, 2, 5, 10, … between 10^low and 10^high; of few, also these two.

    Over three decades and more there are powers of ten alone, eight at most.
    """
    factors = (1, 2, 5) if high - low < 3 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    if len(powers) > 8:
        powers = range(powers.start, powers.stop, math.ceil(len(powers) / 8))
    every = [f * 10.0**power for power in powers for f in factors]
    inside = [tick for tick in every if low <= math.log10(tick) <= high]
    return inside if len(inside) > 2 else sorted({10**low, *inside, 10**high})
