"""What makes two runs the same: the numbers they compute, not where and not for how long."""

from typing import Any

from ba_dist.config.schema import Config
from ba_dist.config.tree import to_dict
from ba_dist.errors import ConfigError
from ba_dist.rules.layout import Layout

# Raised when the same configuration computes something else than before: a run is not continued or
# evaluated by a version that would give other numbers without a word. 2: strides of networks are
# centred on even pixels; shares of the samples are even; warm-up starts at --warmup-from. 3: images
# are resized and recoloured by OpenCV, no longer by Pillow; most pixels differ a little.
COMPUTATION = 3


def check_computation(number: int) -> None:
    """Refuses what a version with another `COMPUTATION` has left.

    Raises:
        ConfigError: naming both numbers.
    """
    if number != COMPUTATION:
        raise ConfigError(
            f"this run was made by a version of ba_dist whose results differ (computation {number},"
            f" here {COMPUTATION}); use that version, or begin anew: another --run-dir, or"
            " --no-resume"
        )


def computed_part(config: Config, layout: Layout) -> dict[str, dict[str, Any]]:
    """What a configuration computes, without where: two runs that agree in it can be one."""
    tree = to_dict(config)
    computed = {part: tree[part] for part in ("batch", "augment", "model", "optimizer")}
    computed["batch"]["ghost_batch_size"] = layout.ghost_batch
    del computed["model"]["init_from"]  # what is in the file counts, not where it lies
    rule = config.optimizer
    if not (isinstance(rule.lr_scale, str) or rule.regime_adaptation):
        del computed["optimizer"]["lr_batch_size"]  # what nothing is computed with
    # A run that stopped at a corrupt record may go on without it.
    free = ("data_dir", "val_samples", "context", "on_corrupt", "corrupt_budget")
    computed["data"] = {name: v for name, v in tree["data"].items() if name not in free}
    kept = ("seed", "precision", "allreduce_dtype")
    computed["run"] = {name: tree["run"][name] for name in kept}
    return computed


def differences(old: dict[str, Any], new: dict[str, dict[str, Any]]) -> list[str]:
    """A line for every value of `new` that differs in `old`.

    A setting that `old` does not have came later than `old`, which had what is its default now.
    """
    defaults = to_dict(Config("defaults"))
    return [
        f"{name} was {before}, now {value}"
        for part, values in new.items()
        for name, value in values.items()
        if (before := {**defaults.get(part, {}), **old.get(part, {})}.get(name)) != value
    ]
