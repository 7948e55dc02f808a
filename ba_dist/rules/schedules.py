"""Step → learning rate: a regime is a few points, and how the rate changes between them.

A point is (epoch, rate) or (epoch, rate, shape).
"""

import math
import re
from collections.abc import Callable
from typing import Any

from ba_dist.errors import ConfigError

Regime = tuple[tuple[float, float] | tuple[float, float, str], ...]
Scale = float | str
SHAPES = ("step", "linear", "cosine", "polynomial", "inverse-sqrt")
_EXPONENTS = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}
_FORM = (
    "a rate such as 0.1, or EPOCH:RATE or EPOCH:RATE:SHAPE points such as 0:0.1,81:0.01 or"
    " 0:0.1:linear,5:0.4,30:0.04"
)


def parse_regime(text: str) -> Regime:
    """Reads `0:0.1,81:0.01` as ((0, 0.1), (81, 0.01)); `0:0.1:linear,5:0.4` has a shape as well.

    One number alone is a rate that stays: `0.1` is ((0, 0.1),).

    Raises:
        ConfigError: when it is not of this form, does not start at epoch 0, or goes back in time.
    """
    try:
        alone = ":" not in text and "," not in text
        words = [f"0:{text}"] if alone else text.split(",")
        points = tuple(_parse_point(*word.split(":")) for word in words)
    except (ValueError, TypeError):
        raise ConfigError(f"--lr {text!r} cannot be read; write {_FORM}") from None
    check_regime(points)
    return points


def _parse_point(epoch: str, rate: str, *shape: str) -> Any:
    if len(shape) > 1:
        raise ValueError(shape)
    return (float(epoch), float(rate), *(name.strip() for name in shape))


def format_regime(regime: Regime) -> str:
    """The text that `parse_regime` reads back."""
    return ",".join(
        ":".join([_shortest(epoch), _shortest(rate), *shape]) for epoch, rate, *shape in regime
    )


def check_regime(regime: Regime) -> None:
    """Raises ConfigError unless epochs start at 0 and grow, numbers and shapes are possible."""
    if not _is_made_of_points(regime):
        raise ConfigError(
            f"--lr {regime!r} is not a regime; expected (EPOCH, RATE) points such as"
            " ((0, 0.1), (81, 0.01))"
        )
    text = format_regime(regime)
    epochs = [point[0] for point in regime]
    if (
        not regime
        or epochs[0] != 0
        or any(b <= a for a, b in zip(epochs, epochs[1:], strict=False))
    ):
        raise ConfigError(f"--lr {text}: epochs must start at 0 and grow")
    if not all(math.isfinite(number) and number >= 0 for point in regime for number in point[:2]):
        raise ConfigError(f"--lr {text}: every number must be finite and at least 0")
    for shape in [name for point in regime for name in point[2:]]:
        if shape not in SHAPES:
            raise ConfigError(
                f"--lr {text}: {shape!r} is no shape; choose from {', '.join(SHAPES)}"
            )


def parse_scale(text: str) -> Scale:
    """Reads `2`, `linear` or `batch^0.25`.

    Raises:
        ConfigError: when it is none of these.
    """
    try:
        scale: Scale = float(text)
    except ValueError:
        scale = text.strip()
    check_scale(scale)
    return scale


def check_scale(scale: Scale) -> None:
    """Raises ConfigError unless it is a factor, a name or a power of the batch."""
    if isinstance(scale, str):
        known = _exponent(scale) is not None
    else:
        number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        known = number and math.isfinite(scale) and scale >= 0
    if known:
        return
    raise ConfigError(
        f"--lr-scale is {scale!r}; expected a factor of at least 0,"
        f" {', '.join(_EXPONENTS)}, or batch^P such as batch^0.25"
    )


def scale_factor(scale: Scale, ratio: float) -> float:
    """The factor of all rates: a number itself, or ratio^p.

        none: p = 0    sqrt: p = 1/2    linear: p = 1    batch^P: p = P

    Args:
        scale: as `check_scale` takes it.
        ratio: the batch size, as a multiple of the one that the regime was written for.

    Sources: Goyal et al. 2017, section 2.1 (linear); Hoffer et al. 2017, "Train longer, generalize
    better", section 4.1 (sqrt); "Augment Your Batch", section 4.1 (powers 0.25, 0.5, 1, 2).
    """
    if not isinstance(scale, str):
        return float(scale)
    return float(ratio ** (_exponent(scale) or 0.0))


def _exponent(scale: str) -> float | None:
    power = re.fullmatch(r"batch\^(-?\d+(\.\d*)?|-?\.\d+)", scale)
    return float(power[1]) if power else _EXPONENTS.get(scale)


def learning_rate(
    regime: Regime,
    steps_per_epoch: int,
    shape: str = "step",
    *,
    power: float = 2.0,
    scale: float = 1.0,
    warmup_steps: float = 0.0,
    warmup_from: float = 0.0,
) -> Callable[[int], float]:
    """Makes the function step → learning rate, where step counts the updates before it.

    With e = step / steps_per_epoch, (e_i, r_i) the last point at or before e, and W = warmup_steps:

        step:          r_i
        linear:        r_i + (r_{i+1} - r_i)·t             t = (e - e_i) / (e_{i+1} - e_i)
        cosine:        r_{i+1} + (r_i - r_{i+1})·(1 + cos πt) / 2
        polynomial:    r_{i+1} + (r_i - r_{i+1})·(1 - t)^power
        inverse-sqrt:  r_i·min(1, √(o / step))             o = max(W, e_i · steps_per_epoch)

    After the last point the rate stays the same, but for inverse-sqrt, which needs no next point.
    All rates are multiplied by the scale. In the first W steps the rate r is replaced by

        warmup_from + (r - warmup_from)·step / W

    So one point, r = (d·W)^-0.5, with inverse-sqrt is the rate of Vaswani et al.:
    d^-0.5 · min(step^-0.5, step · W^-1.5).

    Args:
        regime: points (epoch, rate) or (epoch, rate, shape).
        steps_per_epoch: N // B.
        shape: of the points that name none.
        power: of polynomial.
        scale: factor of every rate of the regime.
        warmup_steps: length of the warm-up, W.
        warmup_from: the rate of the first step; with linear scaling, the rate before scaling.

    Raises:
        ConfigError: when inverse-sqrt begins at step 0, where its root has no bound.

    Sources: Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.2 (gradual warm-up); You
    et al. 2017, "Large Batch Training of Convolutional Networks" (polynomial, power 2); Vaswani et
    al. 2017, "Attention Is All You Need", equation 3 (inverse-sqrt).
    """
    if warmup_steps == 0 and (*regime[0][2:], shape)[0] == "inverse-sqrt":
        raise ConfigError(
            "inverse-sqrt falls from the end of the warm-up, and there is none; give"
            " --warmup-steps or --warmup-epochs, or the shape to a point of --lr after epoch 0"
        )
    warm_up = warmup_steps / steps_per_epoch

    def at(step: int) -> float:
        rate = scale * _between(regime, shape, step / steps_per_epoch, power=power, warm_up=warm_up)
        if step < warmup_steps:
            rate = warmup_from + (rate - warmup_from) * step / warmup_steps
        return rate

    return at


def growing(last: float, steps: float) -> Callable[[int], float]:
    """Makes the function step → last · min(1, step / steps): a straight line, then level.

    Args:
        last: where it ends.
        steps: in which it grows; 0 where it begins at its end.
    """
    return lambda step: last if step >= steps else last * step / steps


def _between(regime: Regime, shape: str, epoch: float, *, power: float, warm_up: float) -> float:
    index = max(i for i, point in enumerate(regime) if point[0] <= epoch)
    start, rate, *named = regime[index]
    shape = named[0] if named else shape
    if shape == "inverse-sqrt":
        begin = max(start, warm_up)
        return rate * math.sqrt(begin / max(begin, epoch))
    if shape == "step" or index + 1 == len(regime):
        return rate
    end, goal = regime[index + 1][:2]
    t = (epoch - start) / (end - start)
    if shape == "linear":
        return rate + (goal - rate) * t
    if shape == "polynomial":
        return goal + (rate - goal) * (1 - t) ** power
    return goal + (rate - goal) * (1 + math.cos(math.pi * t)) / 2


def _is_made_of_points(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(point, tuple)
        and len(point) in (2, 3)
        and all(isinstance(number, (int, float)) for number in point[:2])
        and all(isinstance(name, str) for name in point[2:])
        for point in value
    )


def _shortest(number: float) -> str:
    """The shortest text that reads back as the same float64."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


def notice(regime: Regime, epochs: float) -> str | None:
    """A note for the user where a regime does not fit the length of the run; None elsewhere."""
    last_epoch, last_rate = regime[-1][:2]
    if last_epoch < epochs and last_rate == 0:
        return f"the learning rate is 0 after {last_epoch:g} epochs; --lr changes it"
    unreached = [f"{point[0]:g}" for point in regime if point[0] > epochs]
    if unreached:
        return (
            f"the run ends after {epochs:g} epochs, before --lr's points at {', '.join(unreached)}"
        )
    return None
