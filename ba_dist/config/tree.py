"""What is done with a whole configuration: changed, written, read, laid out on ranks."""

import dataclasses
from typing import Any

from ba_dist.config.schema import PARTS, Config, options
from ba_dist.errors import ConfigError
from ba_dist.rules.layout import Layout, steps_per_epoch
from ba_dist.rules.plan import Plan
from ba_dist.rules.schedules import format_regime, parse_regime

# How the values came about, which files of earlier versions do not say.
_ORIGIN = {"baseline", "smoke"}


def override(config: Config, changes: dict[str, Any]) -> Config:
    """The same configuration with some fields changed, by their flat names.

    Raises:
        ConfigError: on an unknown name or a value that cannot work.
    """
    homes = {option.name: option.part for option in options()}
    if unknown := sorted(set(changes) - set(homes)):
        raise ConfigError(f"unknown option(s) {', '.join(unknown)}; valid: {', '.join(homes)}")
    parts: dict[str, Any] = {}
    for part in PARTS:
        mine = {name: value for name, value in changes.items() if homes[name] == part}
        parts[part] = dataclasses.replace(getattr(config, part), **mine)
    return dataclasses.replace(config, **parts)


def to_dict(config: Config) -> dict[str, Any]:
    """The tree as JSON can hold it; `from_dict` reads it back."""
    tree = dataclasses.asdict(config)
    tree["optimizer"]["lr"] = format_regime(config.optimizer.lr)
    return tree


def from_dict(tree: dict[str, Any]) -> Config:
    """Reads what `to_dict` wrote; a field that is not there has its default.

    Raises:
        ConfigError: when a part is missing, a field is unknown or a value cannot work.
    """
    try:
        flat = {name: value for part in PARTS for name, value in tree[part].items()}
        flat["lr"] = parse_regime(flat["lr"])
        made = {"recipe": tree["recipe"], **{name: tree[name] for name in _ORIGIN & tree.keys()}}
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"this is not a whole configuration: {error!r}") from None
    return override(Config(**made), flat)


def batch_ratio(config: Config) -> float:
    """The batch size as a multiple of the one that the regime was written for."""
    batch_size = config.batch.batch_size
    return batch_size / (config.optimizer.lr_batch_size or batch_size)


def layout_of(config: Config, world_size: int) -> Layout:
    """The layout of a configuration on so many ranks.

    Raises:
        LayoutError: naming the values that would work.
    """
    return Layout(
        world_size=world_size,
        multiplicity=config.batch.multiplicity,
        batch_size=config.batch.batch_size,
        group_size=config.placement.group_size or 0,
        ghost_batch_size=config.batch.ghost_batch_size,
        microbatch=config.placement.microbatch or 0,
        samples=config.data.train_samples or 0,
    )


def plan_steps(config: Config, samples: int, world_size: int) -> Plan:
    """The steps of a run; known before the first one.

    Args:
        config: of the run.
        samples: to train on.
        world_size: its ranks.

    Raises:
        LayoutError: when an epoch has not a single whole batch.
    """
    per_epoch = steps_per_epoch(samples, config.batch.batch_size)
    if per_epoch == 0:
        layout_of(override(config, {"train_samples": samples}), world_size)
    run = config.run
    return Plan(per_epoch, run.steps or run.epochs * per_epoch, run.eval_every)
