"""Step → learning rate: regimes are data, a few (epoch, rate) points and how to go between them."""

import math
from collections.abc import Callable
from typing import Any

from ba_dist.errors import ConfigError

Regime = tuple[tuple[float, float], ...]


def parse_regime(text: str) -> Regime:
    """Reads `0:0.1,81:0.01,122:0.001` as ((0, 0.1), (81, 0.01), (122, 0.001)).

    Raises:
        ConfigError: when it is not of this form, does not start at epoch 0, or goes back in time.
    """
    try:
        points = tuple(
            (float(epoch), float(rate))
            for epoch, rate in (pair.split(":") for pair in text.split(","))
        )
    except ValueError:
        raise ConfigError(
            f"--lr {text!r} cannot be read; write EPOCH:RATE pairs such as 0:0.1,81:0.01"
        ) from None
    check_regime(points)
    return points


def format_regime(regime: Regime) -> str:
    """The text that `parse_regime` reads back."""
    return ",".join(f"{_shortest(epoch)}:{_shortest(rate)}" for epoch, rate in regime)


def check_regime(regime: Regime) -> None:
    """Raises ConfigError unless epochs start at 0 and grow, and all is finite and not negative."""
    if not _is_made_of_pairs(regime):
        raise ConfigError(
            f"--lr {regime!r} is not a regime; expected (EPOCH, RATE) pairs: ((0, 0.1), (81, 0.01))"
        )
    epochs = [epoch for epoch, _ in regime]
    if (
        not regime
        or epochs[0] != 0
        or any(b <= a for a, b in zip(epochs, epochs[1:], strict=False))
    ):
        raise ConfigError(f"--lr {format_regime(regime)}: epochs must start at 0 and grow")
    if not all(math.isfinite(number) and number >= 0 for point in regime for number in point):
        raise ConfigError(
            f"--lr {format_regime(regime)}: every number must be finite and at least 0"
        )


def learning_rate(
    regime: Regime, shape: str, warmup_epochs: float, steps_per_epoch: int
) -> Callable[[int], float]:
    """Makes the function step → learning rate.

    With e = step / steps_per_epoch and (e_i, r_i) the last point at or before e:

        step:    r_i
        linear:  r_i + (r_{i+1} - r_i)·t             t = (e - e_i) / (e_{i+1} - e_i)
        cosine:  r_{i+1} + (r_i - r_{i+1})·(1 + cos πt) / 2

    after the last point, its rate. During warm-up the rate is multiplied by e / warmup_epochs,
    counted from the end of the first step (Goyal et al. 2017, section 2.2, starting near 0).
    """

    def at(step: int) -> float:
        epoch = step / steps_per_epoch
        rate = _between(regime, shape, epoch)
        if epoch < warmup_epochs:
            rate *= min(1.0, (step + 1) / (warmup_epochs * steps_per_epoch))
        return rate

    return at


def _between(regime: Regime, shape: str, epoch: float) -> float:
    index = max(i for i, (start, _) in enumerate(regime) if start <= epoch)
    start, rate = regime[index]
    if shape == "step" or index + 1 == len(regime):
        return rate
    end, goal = regime[index + 1]
    t = (epoch - start) / (end - start)
    if shape == "linear":
        return rate + (goal - rate) * t
    return goal + (rate - goal) * (1 + math.cos(math.pi * t)) / 2


def _is_made_of_pairs(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(point, tuple)
        and len(point) == 2
        and all(isinstance(number, (int, float)) for number in point)
        for point in value
    )


def _shortest(number: float) -> str:
    """The shortest text that reads back as the same float64."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


def notice(regime: Regime, epochs: float) -> str | None:
    """What a person should know of a regime that does not fit the length of the run."""
    last_epoch, last_rate = regime[-1]
    if last_epoch < epochs and last_rate == 0:
        return f"the learning rate is 0 from epoch {last_epoch:g} on; --lr changes it"
    unreached = [f"{epoch:g}" for epoch, _ in regime if epoch > epochs]
    if unreached:
        return f"the run ends after {epochs:g} epochs, before --lr's epochs {', '.join(unreached)}"
    return None
