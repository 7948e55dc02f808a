"""What a recipe asks of a machine, whatever the machine is."""

import math
from dataclasses import dataclass

from ba_dist.config import Config, adapted, override, plan_steps
from ba_dist.errors import ConfigError
from ba_dist.planner.networks import NETWORKS, Facts
from ba_dist.recipes.about import SAMPLES

# ImageNet's tar of training images has 147,897,477,120 bytes for 1,281,167 JPEGs, each with a
# header of 512 and padding; their mean size in pixels is 400 x 350 (Russakovsky et al. 2015).
_JPEG = (114_700, 400 * 350 * 3)
_SYNTHETIC_JPEG = 500 * 375 * 3  # JPEGs in memory, which are decoded as others are
# (height and width, channels)
_IN_MEMORY = {"cifar10": (32, 3), "cifar100": (32, 3), "fashion_mnist": (28, 1), "digits": (8, 1)}
_SIZES = {**SAMPLES, "fashion_mnist": 60_000, "digits": 1_500}
_SLOTS = {"sgd": 1, "lars": 1, "adam": 2, "adamw": 2}
_FULL = 224 * 224  # pixels of what augmenting was measured with


@dataclass(frozen=True)
class Workload:
    """A run, as far as its costs go.

    Args:
        config: of the run.
        facts: of its network.
        samples: to train on.
        steps: of the run.
        epoch_steps: steps an epoch.
        record: bytes of an encoded record; 0 where there is nothing to decode.
        decoded: bytes of a decoded one.
        side: height and width that the network sees.
        shards: files that hold the records; 0 where each record is a file.
        stored: whether records are read from storage, step by step, and do not lie in memory.
    """

    config: Config
    facts: Facts
    samples: int
    steps: int
    epoch_steps: int
    record: float
    decoded: float
    side: int
    shards: int = 0
    stored: bool = True

    @property
    def scale(self) -> float:
        """Pixels that the network sees, as a multiple of those that its facts are for."""
        return (self.side / self.facts.side) ** 2

    @property
    def instance_pixels(self) -> float:
        """Pixels of an instance as a share of 224 x 224, which augmenting grows with."""
        return self.side**2 / _FULL

    @property
    def bytes_of_number(self) -> int:
        """Of a weight."""
        return 8 if self.config.run.precision == "fp64" else 4

    @property
    def message(self) -> float:
        """Bytes that a step sums: gradients as `--allreduce-dtype` has them, moving statistics."""
        of_gradients = 2 if self.config.run.allreduce_dtype in ("bf16", "fp16") else 0
        of_gradients = of_gradients or self.bytes_of_number
        return of_gradients * self.facts.parameters + self.bytes_of_number * self.facts.statistics

    @property
    def buckets(self) -> int:
        """Pieces in which gradients go while the backward pass goes on (`--bucket-mb`).

        They are cut before they are rounded to what is sent.
        """
        limit = self.config.placement.bucket_mb * 2**20
        gradients = self.bytes_of_number * self.facts.parameters
        return max(1, math.ceil(gradients / limit)) if limit else 1

    def fixed_memory(self) -> float:
        """Bytes of a rank that do not grow with the batch: weights, gradients, slots, average."""
        rule = self.config.optimizer
        averages = (rule.ema > 0) + (rule.average_after is not None)
        copies = 2 + _SLOTS.get(rule.optimizer, 2) + averages
        numbers = copies * self.facts.parameters + self.facts.statistics
        return self.bytes_of_number * numbers

    def memory(self, instances: int, microbatch: int) -> float:
        """Bytes of a rank, at least: as `train --dry-run` counts them (`reports/outlook.py`)."""
        size = {"fp16": 2, "bf16": 2, "fp64": 8}.get(self.config.run.precision, 4)
        kept = self.facts.kept * self.scale * size * microbatch
        if self.config.placement.recompute:
            kept /= 2
        return self.fixed_memory() + kept + 2 * instances * self.side**2 * 3 * 4


def workload_of(config: Config, samples: int | None = None, shards: int = 0) -> Workload:
    """What a recipe asks for.

    Args:
        config: of the run.
        samples: to train on, where they are known better than by the name of the dataset.
        shards: files that hold the records; 0 where each record is a file.

    Raises:
        ConfigError: where the network or the dataset is none that is known here.
    """
    config = adapted(config)
    name, data = config.model.model, config.data
    if name not in NETWORKS:
        raise ConfigError(
            f"nothing is known of the size of the network {name!r} without building it; those that"
            f" can be planned are {', '.join(NETWORKS)}"
        )
    samples = samples or data.train_samples or _SIZES.get(data.dataset)
    if samples is None:
        raise ConfigError(
            f"the number of samples of {data.dataset} is not known without the data; give"
            " --train-samples"
        )
    side, (record, decoded) = data.image_size, _JPEG
    in_memory = data.dataset in _IN_MEMORY or data.dataset.startswith("synthetic")
    if data.dataset == "synthetic-jpeg":
        decoded = _SYNTHETIC_JPEG
    elif in_memory:
        side, channels = _IN_MEMORY.get(data.dataset, (side, data.image_channels))
        record, decoded = 0, side**2 * channels
    steps = plan_steps(override(config, {"train_samples": samples}), samples, 1)
    return Workload(config, NETWORKS[name], samples, steps.total_steps, steps.steps_per_epoch,
                    record, decoded, side, shards, not in_memory)  # fmt: skip
