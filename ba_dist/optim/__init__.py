"""Update rules: name → how weights move."""

from collections.abc import Callable, Sequence
from typing import Any

from ba_dist.config import Optimizer
from ba_dist.errors import ConfigError
from ba_dist.optim.rule import Hyperparameters, UpdateRule

__all__ = ["RULES", "Hyperparameters", "UpdateRule", "build", "hyperparameters"]


def _sgd(variables: Sequence[Any], config: Optimizer) -> UpdateRule:
    from ba_dist.optim.sgd import SGD

    return SGD(variables, nesterov=config.nesterov, decays=config.weight_decay > 0)


def _lars(variables: Sequence[Any], config: Optimizer) -> UpdateRule:
    from ba_dist.optim.lars import LARS

    return LARS(variables, trust=config.trust, decays=config.weight_decay > 0)


def _adam(decoupled: bool) -> Callable[[Sequence[Any], Optimizer], UpdateRule]:
    def made(variables: Sequence[Any], config: Optimizer) -> UpdateRule:
        from ba_dist.optim.adam import Adam

        return Adam(
            variables,
            beta1=config.beta1,
            beta2=config.beta2,
            epsilon=config.epsilon,
            decoupled=decoupled,
            decays=config.weight_decay > 0,
        )

    return made


RULES: dict[str, Callable[[Sequence[Any], Optimizer], UpdateRule]] = {
    "sgd": _sgd,
    "lars": _lars,
    "adam": _adam(decoupled=False),
    "adamw": _adam(decoupled=True),
}


def check(config: Optimizer) -> None:
    """Refuses a rule that is not there, and two averages of the weights.

    Raises:
        ConfigError: listing the rules, or naming the flags.
    """
    if config.ema > 0 and config.average_after is not None:
        raise ConfigError(
            f"--ema {config.ema} and --average-after {config.average_after} are two averages of"
            " the weights; choose one"
        )
    if config.optimizer not in RULES:
        raise ConfigError(
            f"--optimizer {config.optimizer!r} is unknown; choose from {', '.join(RULES)}"
        )


def build(variables: Sequence[Any], config: Optimizer) -> UpdateRule:
    """The update rule of a configuration.

    Args:
        variables: Keras variables to move, with their tags.
        config: its name and settings.

    Raises:
        ConfigError: listing the rules when there is none of this name.
    """
    check(config)
    return RULES[config.optimizer](variables, config)


def hyperparameters(config: Optimizer, learning_rate: float) -> dict[str, float]:
    """What the update rules get in a step, besides the gradients.

    Args:
        config: of the run.
        learning_rate: of this step, from the regime.
    """
    return {
        "learning_rate": learning_rate,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
    }
