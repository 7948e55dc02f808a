"""Seconds of training steps on every rank at a time, without messages between them."""

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist import experiment, optim
from ba_dist.comm import Comm
from ba_dist.config import Augment, Config
from ba_dist.data.batch import Batch, Instances
from ba_dist.data.sources import ImageInfo
from ba_dist.rules.layout import Layout

Floats = npt.NDArray[np.float64]
CLASSES, RATE, GHOST_BATCH = 1000, 0.01, 32
_MOST_STEPS, _LEAST_STEPS = 50, 4


@dataclass(frozen=True)
class Line:
    """t(n) = fixed + instance · n, with how well it fits.

    Args:
        fixed: seconds a microbatch.
        instance: seconds an instance.
        off: the largest relative distance of a measured time from the line.
    """

    fixed: float
    instance: float
    off: float


def train_step(
    comm: Comm, layout: Layout, config: Config, shape: tuple[int, int, int], classes: int
) -> "functools.partial[Any]":
    """ba_dist's step on a new network: ghost BatchNorm, SGD with momentum; allreduce as the layout.

    Args:
        comm: the ranks.
        layout: of the step; with a world of one rank nothing is sent.
        config: with model and precision.
        shape: (H, W, C) of an image.
        classes: number of classes.
    """
    info = ImageInfo("measured", shape, classes, (0.5,) * shape[2], (0.25,) * shape[2])
    config = dataclasses.replace(config, augment=Augment())
    made = experiment.assemble(config, info, layout.ghost_batch)
    step = experiment.train_step(made, layout, comm)
    hyper = optim.hyperparameters(config.optimizer, RATE)
    return functools.partial(step, hyper=hyper)


def fixed_batch(size: int, image_size: int, rank: int) -> Batch:
    """A batch of noise, to train on again and again."""
    numbers, ids = np.random.default_rng(rank), np.arange(size)
    instances = Instances(ids, np.zeros_like(ids), ids.astype(np.uint64))
    inputs = {
        "images": numbers.integers(0, 256, (size, image_size, image_size, 3), np.uint8),
        "labels": numbers.integers(0, CLASSES, size),
    }
    return Batch(0, 0, inputs, instances, np.zeros((0, 2), np.int64))


def step_seconds(comm: Comm, config: Config, size: int, budget: float) -> Floats:
    """Seconds of steps of `size` instances on all ranks at a time; collective.

    Args:
        comm: the ranks.
        config: with model, image size and precision.
        size: instances that go through the network at once.
        budget: seconds to take, about; the first step, which builds the graph, comes on top.

    Returns:
        [W, steps].
    """
    from ba_dist.models.precision import set_precision  # it brings TensorFlow

    side = config.data.image_size
    set_precision(config.run.precision)
    layout = Layout(1, 1, size, ghost_batch_size=min(size, GHOST_BATCH))
    step = train_step(comm, layout, config, (side, side, 3), CLASSES)
    batch = fixed_batch(size, side, comm.rank)
    step(batch)
    mine = _timed(step, batch)
    slowest = float(comm.world.gather_all(np.array(mine)).max())
    count = int(np.clip(budget / slowest, _LEAST_STEPS, _MOST_STEPS))
    found = []
    for _ in range(count):
        comm.world.barrier()
        found.append(_timed(step, batch))
    return comm.world.gather_all(np.array(found))


def _timed(step: Callable[[Batch], Any], batch: Batch) -> float:
    begun = time.perf_counter()
    step(batch)
    return time.perf_counter() - begun


def fit(sizes: list[int], seconds: list[float]) -> Line:
    """The line with the least squares of relative distances; of one size through the origin.

    Neither part may be negative: where the data says so, that part is 0.
    """
    n, t = np.array(sizes, float), np.array(seconds)
    if len(n) == 1:
        return Line(0.0, float(t[0] / n[0]), 0.0)
    columns = np.stack([1 / t, n / t], 1)
    fixed, instance = np.linalg.lstsq(columns, np.ones(len(n)), rcond=None)[0]
    if fixed < 0:
        fixed, instance = 0.0, (n / t).sum() / ((n / t) ** 2).sum()
    elif instance <= 0:
        fixed, instance = 0.0, float((t / n).min())
    off = float(np.abs((fixed + instance * n) / t - 1).max())
    return Line(float(fixed), float(instance), off)


def split_noise(seconds: Floats) -> tuple[float, float]:
    """(relative deviation of a rank for itself, that of all ranks together).

    Of steps [W, steps]: the mean over the ranks in each step is what they have together; what is
    left is each rank's own. One rank alone cannot tell, and all of it counts as its own.
    """
    relative = seconds / seconds.mean()
    if len(seconds) == 1:
        return float(relative.std(ddof=1)), 0.0
    together = relative.mean(axis=0)
    own = float((relative - together).std(ddof=1)) * np.sqrt(len(seconds) / (len(seconds) - 1))
    common = max(0.0, float(together.var(ddof=1)) - own**2 / len(seconds))
    return float(own), float(np.sqrt(common))
