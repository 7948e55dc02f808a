"""One value of the configuration: what it may be, and how it is written as a flag."""

import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ba_dist.errors import ConfigError
from ba_dist.rules.schedules import (
    Regime,
    Scale,
    check_regime,
    check_scale,
    format_regime,
)


def setting(default: Any, help: str, low: float | None = None, high: float | None = None) -> Any:
    """A field of the tree.

    Args:
        default: where a recipe says nothing else.
        help: what `--help` says of it; no full stop.
        low: the least it may be.
        high: the most it may be.
    """
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True)
class Option:
    """One field of the tree, as the command line shows it.

    Args:
        part: the field of `Config` that holds it.
        name: its own.
        type: int, float, bool, str, tuple for a regime of learning rates, or Scale for a factor.
        choices: all that it may be; empty where anything of its type is allowed.
        optional: whether it may be None.
        help: what `--help` says of it.
        low: the least it may be.
        high: the most it may be.
    """

    part: str
    name: str
    type: Any
    choices: tuple[str, ...]
    optional: bool
    help: str
    low: float | None
    high: float | None

    @property
    def flag(self) -> str:
        """`--batch-size` for `batch_size`."""
        return "--" + self.name.replace("_", "-")

    def of(self, config: Any) -> Any:
        """Its value in a configuration."""
        return getattr(getattr(config, self.part), self.name)

    def text(self, value: Any) -> str:
        """A value as the command line takes it."""
        return format_regime(value) if self.type is tuple else str(value)


def options_of(part: str, cls: Any) -> Iterator[Option]:
    """Every field of one part of the tree, in order."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind, choices, optional = _unfold(hints[field.name])
        yield Option(part, field.name, kind, choices, optional, **field.metadata)


def check(option: Option, value: Any) -> None:
    """Raises ConfigError, naming the flag, when a value has the wrong type or is out of range."""
    if value is None and option.optional:
        return
    if option.type is tuple:
        check_regime(value)
        return
    if option.type == Scale:
        check_scale(value)
        return
    accepted: Any = (int, float) if option.type is float else option.type
    wrong_bool = isinstance(value, bool) and option.type is not bool
    if wrong_bool or not isinstance(value, accepted):
        raise ConfigError(f"{option.flag} is {value!r}; expected {option.type.__name__}")
    if option.type is float and not math.isfinite(value):
        raise ConfigError(f"{option.flag} is {value}; it must be a finite number")
    if option.choices and value not in option.choices:
        raise ConfigError(f"{option.flag} is {value!r}; choose from {', '.join(option.choices)}")
    below = option.low is not None and not value >= option.low
    above = option.high is not None and not value <= option.high
    if below or above:
        expected = " and ".join(
            [f"at least {option.low}"] * (option.low is not None)
            + [f"at most {option.high}"] * (option.high is not None)
        )
        raise ConfigError(f"{option.flag} is {value}; it must be {expected}")


def _unfold(hint: Any) -> tuple[Any, tuple[str, ...], bool]:
    """(plain type, choices, may be None) of a field's annotation."""
    if typing.get_origin(hint) is Literal:
        return str, typing.get_args(hint), False
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        (inner,) = (a for a in arguments if a is not type(None))
        return *_unfold(inner)[:2], True
    return (tuple if hint == Regime else hint), (), False
