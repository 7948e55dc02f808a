"""Configuration → augmentation, network, update rule, step, evaluation: all put together here only.

Training, `ba-dist eval` and the benchmarks take them from here, so that they cannot drift apart.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ba_dist import models, runtime, step
from ba_dist.comm import Comm
from ba_dist.config import Config
from ba_dist.data.augment import Augmentation
from ba_dist.data.pipeline import io_threads
from ba_dist.data.sources import DatasetInfo, Source, workers
from ba_dist.evaluate import Evaluator
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
from ba_dist.optim.sgd import SGD
from ba_dist.rules import schedules
from ba_dist.rules.layout import Layout


@dataclass(frozen=True)
class Network:
    """What maps samples to logits.

    Args:
        augmentation: makes instances, and plain images for evaluation.
        model: Keras model, images [n, H, W, C] → logits [n, classes].
        precision: it was built in.
    """

    augmentation: Augmentation
    model: Any
    precision: step.Precision


def network(config: Config, info: DatasetInfo, ghost_batch: int) -> Network:
    """Builds the network with the weights of the run's seed, the same on every rank.

    Args:
        config: of the run.
        info: of its dataset.
        ghost_batch: instances that are normalised together.

    Raises:
        ConfigError: when network, augmentation and dataset do not fit each other.
    """
    augmentation = Augmentation(config.augment, info, config.data.image_size)
    precision = step.set_precision(config.run.precision)
    norm = partial(
        GhostBatchNormalization, ghost_batch_size=ghost_batch, momentum=config.model.bn_momentum
    )
    # Here, not earlier: whoever has prepared data may have drawn random numbers meanwhile.
    runtime.seed(config.run.seed)
    shape = augmentation.image_shape
    return Network(
        augmentation, models.build(config.model.model, shape, info.classes, norm), precision
    )


def train_step(config: Config, built: Network, layout: Layout, comm: Comm) -> step.TrainStep:
    """The step that trains a network: ghost batches, one fused allreduce, the update rule."""
    rule = config.optimizer
    weights = built.model.trainable_variables
    optimizer = SGD(weights, rule.momentum, rule.weight_decay, rule.nesterov)
    return step.TrainStep(built.model, optimizer, layout, comm, built.precision)


def learning_rate(config: Config, steps_per_epoch: int) -> Callable[[int], float]:
    """Step → learning rate of a run."""
    rule = config.optimizer
    return schedules.learning_rate(
        rule.lr,
        steps_per_epoch,
        shape=rule.lr_shape,
        scale=rule.lr_scale,
        warmup_epochs=rule.warmup_epochs,
        warmup_from=rule.warmup_from,
    )


@contextmanager
def evaluator(config: Config, built: Network, source: Source, comm: Comm) -> Iterator[Evaluator]:
    """What measures a network on the plain images of a source, with threads that read them."""
    skip = config.data.on_corrupt == "skip"
    with workers(io_threads(config, source)) as pool:
        yield Evaluator(built.model, source, built.augmentation, comm, pool, skip)
