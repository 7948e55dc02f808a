"""Any recipe in a minute on two cores: its network and augmentations, hardly any samples.

    launch/mpirun.sh -n 2 -- train wrn28-10-cifar10 --smoke

It shows that the recipe runs and that its loss falls; it says nothing of an accuracy.
"""

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ba_dist.config import Config, batch_ratio, override
from ba_dist.config.epochs import stretched
from ba_dist.rules.schedules import scale_factor

BATCH = 4  # distinct samples a step
MULTIPLICITY = 2  # copies, at most
EPOCHS = 4
STEPS_PER_EPOCH = 2
WARM_UP_STEPS = 1  # of a warm-up that is counted in steps; it counts as many in any run
# Update rule → its highest rate: at those of whole runs the loss of so few samples jumps.
RATES = {"sgd": 0.01, "lars": 2.0}
CLIPPED_RATE = 10.0

_TEXT = {"dataset": "synthetic-text", "bptt": 16, "context": 16, "least_count": 1}
_PAIRS = {"dataset": "synthetic-pairs", "row_tokens": 32, "subwords": None}
# Dataset → the changes that bring small data of the same kind, which needs no file. A family of
# recipes on other data enters its own here; a dataset that is not named stays, with few samples.
SMALL_DATA: dict[str, dict[str, Any]] = {
    "cifar10": {"dataset": "synthetic-colour", "image_size": 32},
    "cifar100": {"dataset": "synthetic-colour", "image_size": 32},
    "fashion_mnist": {"dataset": "synthetic-colour", "image_size": 28, "image_channels": 1},
    "imagenet": {"dataset": "synthetic-jpeg", "image_size": 64},
    **dict.fromkeys(("ptb", "bible-kjv", "fortunes", "text"), _TEXT),
    **dict.fromkeys(("wmt16-en-de", "gettext-en-de", "pairs"), _PAIRS),
}
# Network → the narrower one of its family, where the network itself takes longer than a minute.
SMALL_NETWORKS = {"darts": "darts-small", "amoebanet": "amoebanet-small"}


def smoke_of(config: Config, given: Mapping[str, Any] | None = None) -> Config:
    """The same experiment on a few samples, for a few steps.

    The network (but for those in `SMALL_NETWORKS`), what makes copies differ, the update rule and
    the shape of the regime stay. B becomes 4, M at most 2, and E epochs four, of two steps; what is
    counted in epochs keeps its share of the run, a warm-up that is counted in steps takes one. All
    rates are brought down where they are too high for so few samples (`RATES`, `CLIPPED_RATE`).
    Samples are synthetic where `SMALL_DATA` knows the dataset.

    Args:
        config: of the recipe.
        given: `batch_size` and `multiplicity` that stay as they are; there are samples enough then.
    """
    sizes = {
        "batch_size": BATCH,
        "multiplicity": min(config.batch.multiplicity, MULTIPLICITY),
        **(given or {}),
    }
    size, copies = sizes["batch_size"], sizes["multiplicity"]
    small = {
        **stretched(config, Fraction(EPOCHS, config.run.epochs)),
        **sizes,
        "ghost_batch_size": min(config.batch.ghost_batch_size, BATCH),
        # For the baseline of as many samples, too, whose batches are M times as large.
        "train_samples": size * max(STEPS_PER_EPOCH, copies),
        "val_samples": BATCH,
        "steps": None,
        "warmup_steps": config.optimizer.warmup_steps and WARM_UP_STEPS,
        "eval_every": EPOCHS,
        "log_every": 1,
        **_gentle(config),
        "lr_batch_size": size,  # the rates are for that batch now
        **SMALL_DATA.get(config.data.dataset, {}),
        "model": SMALL_NETWORKS.get(config.model.model, config.model.model),
    }
    return dataclasses.replace(override(config, small), smoke=True)


def _gentle(config: Config) -> dict[str, Any]:
    """A factor on all rates that brings the highest one down to that of `RATES`, where it has one.

    A gradient that is clipped moves weights by no more than the rate times --clip-norm.
    """
    rule = config.optimizer
    scale = scale_factor(rule.lr_scale, batch_ratio(config))
    highest = scale * max(point[1] for point in rule.lr)
    wanted = CLIPPED_RATE if rule.clip_norm else RATES.get(rule.optimizer, highest)
    down = min(1.0, wanted / highest)
    return {"lr_scale": scale * down, "warmup_from": rule.warmup_from * down}
