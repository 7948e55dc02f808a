"""What batch augmentation is compared with: three baselines, derived from any configuration.

Of an experiment with B samples a step, M copies of each, and E epochs of N samples:

    baseline        samples a step   copies   instances a step   epochs   updates
    none            B                M        B·M                E        E·(N // B)
    fixed-steps     B                1        B                  E        E·(N // B)
    fixed-samples   B·M              1        B·M                E·M      E·M·(N // (B·M))
    fixed-compute   B / M            M        B                  E / M    (E / M)·(N // (B / M))

All four make the same number of updates, but for the last partial batch of an epoch, which is
dropped: where it is not empty, E·M·(N // (B·M)) is a little below E·(N // B), and the last row a
little above. Everything that is counted in epochs is stretched with E, so that it falls on the same
update. What is counted in updates stays as it is, such as --warmup-steps, and --steps of a run that
ends after so many: E says nothing there, and need not come out whole. All else stays: the rates,
the ghost batch size, the seed.

Sources: fixed-steps and fixed-samples are the baselines of table 2 of "Augment Your Batch";
fixed-compute is Fort et al. 2021, arXiv:2105.13343 (as many updates and as many gradients, from
fewer distinct samples a step).
"""

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ba_dist.config import BASELINES, Config, adapted, override
from ba_dist.config.epochs import stretched
from ba_dist.errors import ConfigError


def baseline_of(config: Config, name: str, given: Mapping[str, Any] | None = None) -> Config:
    """The baseline of an experiment.

    Args:
        config: of the experiment; its B and M are what the baseline is compared with.
        name: one of BASELINES; `none` is the experiment itself.
        given: flat name → value of what wins over that which is derived.

    Raises:
        ConfigError: when there is no such baseline, `config` is one already, or B / M or E / M is
            not a whole number, with the numbers that are.
    """
    if name not in BASELINES:
        raise ConfigError(f"--baseline is {name!r}; choose from {', '.join(BASELINES)}")
    if config.baseline != "none":
        raise ConfigError(
            f"this is the {config.baseline} baseline of {config.recipe} already; --baseline derives"
            " one from a recipe"
        )
    if name == "none":
        return override(config, dict(given or {}))
    config = adapted(config)
    # Stretched as far as it has to be: adapting it to its batch as well would do so twice.
    derived = {**_DERIVED[name](config), **(given or {}), "regime_adaptation": False}
    if isinstance(derived.get("epochs"), Fraction):
        _refuse_epochs(config, float(derived["epochs"]))
    return dataclasses.replace(override(config, derived), baseline=name)


def _fixed_steps(config: Config) -> dict[str, Any]:
    return {"multiplicity": 1}


def _fixed_samples(config: Config) -> dict[str, Any]:
    copies = config.batch.multiplicity
    size = config.batch.batch_size * copies
    return {"multiplicity": 1, "batch_size": size, **stretched(config, Fraction(copies))}


def _fixed_compute(config: Config) -> dict[str, Any]:
    size, copies = config.batch.batch_size, config.batch.multiplicity
    ghost = config.batch.ghost_batch_size
    samples = size // copies
    # Two copies of a sample are never normalised together: with fewer samples than a ghost batch
    # has instances, ghost batches hold that many.
    if size % copies or (samples > ghost and samples % ghost):
        valid = [m for m in range(1, size + 1) if _shares(size, m, ghost)]
        raise ConfigError(
            f"--baseline fixed-compute takes B / M = {size} / {copies} distinct samples a step,"
            f" which must be a whole number, and where it is above --ghost-batch-size {ghost} a"
            f" multiple of that; --multiplicity values that work: {', '.join(map(str, valid))}"
        )
    return {"batch_size": samples, **stretched(config, Fraction(1, copies))}


def _shares(size: int, copies: int, ghost: int) -> bool:
    samples = size // copies
    return size % copies == 0 and (samples <= ghost or samples % ghost == 0)


def _refuse_epochs(config: Config, epochs: float) -> None:
    copies, whole = config.batch.multiplicity, config.run.epochs
    raise ConfigError(
        f"--baseline fixed-compute runs for E / M = {whole} / {copies} = {epochs:g} epochs of fewer"
        f" samples a step, which must be a whole number; give --epochs {round(epochs) or 1} for"
        " about as many updates, or another --multiplicity"
    )


_DERIVED = {
    "fixed-steps": _fixed_steps,
    "fixed-samples": _fixed_samples,
    "fixed-compute": _fixed_compute,
}
