"""A training step and its input for the benchmarks, made of ba_dist's own pieces."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

from ba_dist import comm as ba_comm
from ba_dist import runtime
from ba_dist.calibration.steps import fixed_batch
from ba_dist.comm import Comm
from ba_dist.config import Augment, Config, override
from ba_dist.data.batch import Batch
from ba_dist.errors import ConfigError, LayoutError
from ba_dist.rules.layout import Layout

Batches = Iterator[Batch]
GHOST_BATCH = 32


def join(seed: int = 0, fused: bool = False) -> Comm:
    """Joins the ranks and sets up TensorFlow and Horovod, as `ba-dist train` does.

    Args:
        seed: of weights.
        fused: with Horovod's fusion, which plain Horovod counts on and ba_dist leaves off.
    """
    comm = ba_comm.start()
    comm.together(lambda: runtime.prepare(comm.node.rank, comm.node.size, comm.cores))
    runtime.seed(seed)
    comm.together(lambda: comm.start_horovod(fused))
    return comm


def layout_for(
    instances: int, multiplicity: int, ranks: int, ghost_batch: int = GHOST_BATCH,
    microbatch: int = 0, group_size: int | None = None,
) -> Layout:  # fmt: skip
    """The layout in which every rank trains on so many instances in a step.

    Raises:
        LayoutError: when they are not whole copies, naming the numbers that would be.
    """
    group = group_size or math.gcd(multiplicity, ranks)
    if math.gcd(multiplicity, ranks) % group:
        raise LayoutError(
            f"groups of {group} ranks do not fit M = {multiplicity} on {ranks} ranks; groups of"
            f" {math.gcd(multiplicity, ranks)} or a divisor of it do"
        )
    copies = multiplicity // group
    if instances % copies:
        near = [max(1, instances // copies) * copies, (instances // copies + 1) * copies]
        raise LayoutError(
            f"{instances} instances on a rank are not {copies} copies (M = {multiplicity} on"
            f" groups of {group} ranks) of each sample; {near[0]} or {near[1]} would be"
        )
    samples = instances // copies * (ranks // group)
    layout = Layout(ranks, multiplicity, samples, group, ghost_batch, microbatch)
    if microbatch:
        return layout
    limit = runtime.default_microbatch()
    return dataclasses.replace(layout, microbatch=layout.microbatch_within(limit))


def configuration(
    model: str, image_size: int, precision: str, dataset: str = "synthetic", data_dir: str = ""
) -> Config:
    """A configuration with ImageNet's augmentation where pictures vary in size.

    Raises:
        ConfigError: when a value cannot work.
    """
    changes = {"model": model, "image_size": image_size, "precision": precision}
    return override(
        Config("benchmark"), {**changes, "dataset": dataset, "data_dir": data_dir or None}
    )


def open_data(config: Config, comm: Comm) -> tuple[Config, Any, Any]:
    """(configuration, source, task) of a dataset; collective."""
    from ba_dist import experiment
    from ba_dist.data.catalog import open_dataset

    dataset = open_dataset(config.data, comm)
    size = config.data.image_size
    varies = dataset.info.image_shape[0] != size
    crop: Any = "random-resized" if varies else "none"
    augment = Augment(crop=crop, flip=True, resize=max(size, config.augment.resize))
    config = dataclasses.replace(config, augment=augment)
    return config, dataset.train, experiment.task_of(config, dataset.info)


@contextlib.contextmanager
def real_batches(
    config: Config, layout: Layout, comm: Comm, source: Any, task: Any, steps: int
) -> Iterator[Batches]:
    """The input of so many steps, by ba_dist's own pipeline; all of them must be taken.

    Raises:
        ConfigError: when the dataset has less than a batch.
    """
    from ba_dist.data.pipeline import open_pipeline

    if len(source) < layout.batch_size:
        raise ConfigError(f"a step needs {layout.batch_size} samples, there are {len(source)}")
    with open_pipeline(
        config, source, task, layout=layout, comm=comm, first=0, last=steps
    ) as pipeline:
        yield iter(pipeline)


def fixed_batches(size: int, image_size: int, rank: int) -> Batches:
    """The same batch for ever: no input to wait for."""
    return itertools.repeat(fixed_batch(size, image_size, rank))
