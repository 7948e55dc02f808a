"""A run in more or fewer epochs: all that is counted in epochs keeps its share of the run."""

import math
from fractions import Fraction
from typing import Any

from ba_dist.config.schema import Config, options
from ba_dist.config.tree import override

# Fields that count epochs, beside the points of --lr. `epochs` and `eval_every` are whole numbers.
COUNTED = ("warmup_epochs", "drop_path_epochs", "weight_decay_epochs")


def stretched(config: Config, factor: Fraction) -> dict[str, Any]:
    """Flat name → value of what is counted in epochs, each `factor` times as long.

    The points of --lr, warm-up, the growth of drop-path and the end of weight decay are at the same
    share of the run as before. `epochs` is a Fraction where it comes out as no whole number, but
    for a run that ends after --steps, whose epochs say nothing: they are rounded up. `eval_every`
    is at least 1. What counts updates (--steps, --warmup-steps) is not here: it stays.

    Args:
        config: of the run as it is.
        factor: above 0.
    """
    flat = {option.name: option.of(config) for option in options()}
    every = max(1, int(flat["eval_every"] * factor))
    epochs = flat["epochs"] * factor
    if flat["steps"] is not None:
        epochs = Fraction(math.ceil(epochs))
    return {
        "epochs": int(epochs) if epochs.denominator == 1 else epochs,
        "eval_every": every,
        "lr": tuple((_times(epoch, factor), *rest) for epoch, *rest in flat["lr"]),
        **{name: _times(flat[name], factor) for name in COUNTED},
    }


def adapted(config: Config) -> Config:
    """The configuration with its regime adapted to the batch size, if it says so; then it is done.

    All that is counted in epochs is multiplied by B / --lr-batch-size, and the epochs of the run
    are rounded up. So the number of updates stays, and each has the rate that it had.

    Source: Hoffer et al. 2017, "Train longer, generalize better", section 5.
    """
    rule, size = config.optimizer, config.batch.batch_size
    if not rule.regime_adaptation:
        return config
    changes = stretched(config, Fraction(size, rule.lr_batch_size or size))
    changes |= {"epochs": math.ceil(changes["epochs"]), "regime_adaptation": False}
    return override(config, changes)


def _times(epochs: float | None, factor: Fraction) -> float | None:
    """Exact as far as floats are: 81 epochs by 1/3 are 27."""
    return None if epochs is None else float(Fraction(epochs) * factor)
