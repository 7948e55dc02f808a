"""Configuration → task, network, update rule, step, evaluation: all put together here, only here.

Training, `ba-dist eval`, audits, pictures and the benchmarks take them from here, so that they
cannot drift apart.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ba_dist import models, optim, runtime, tasks
from ba_dist.comm import Comm
from ba_dist.config import Config, batch_ratio
from ba_dist.data import augment
from ba_dist.data.augment import mixing
from ba_dist.data.pipeline import io_threads
from ba_dist.data.sources import DatasetInfo, Source, workers
from ba_dist.errors import ConfigError
from ba_dist.models import variables, weights
from ba_dist.rules import schedules
from ba_dist.rules.layout import Layout
from ba_dist.run import checkpoint

# What a step and an evaluation are is imported where they are made: audits need no TensorFlow.


@dataclass(frozen=True)
class Experiment:
    """What learns what.

    Args:
        config: it was made of.
        task: loss, metrics, instances, predictions.
        model: Keras model, inputs as the task gives them.
        precision: that the model was built in, a `models.precision.Precision`.
    """

    config: Config
    task: tasks.Task
    model: Any
    precision: Any


def check(config: Config) -> None:
    """Refuses names that no registry has and flags that do not fit each other, before work starts.

    Raises:
        ConfigError: listing the names that there are, or naming the flags.
    """
    models.check(config.model.model)
    if config.model.drop_path > 0 and not models.network(config.model.model).drop_path:
        raise ConfigError(
            f"--drop-path {config.model.drop_path}: {config.model.model} has no edges to zero;"
            f" use 0, or one of {', '.join(models.with_drop_path())}"
        )
    if config.placement.recompute and models.network(config.model.model).keeps_state:
        raise ConfigError(
            f"--recompute does not work with {config.model.model}, which keeps a state from step to"
            " step; a smaller --microbatch needs less memory as well"
        )
    if config.run.precision == "fp64" and config.run.allreduce_dtype:
        raise ConfigError(
            f"--allreduce-dtype {config.run.allreduce_dtype} would round the gradients of"
            " --precision fp64, which is for checking; leave one of them out"
        )
    _check_manifold_mixup(config)
    optim.check(config.optimizer)
    augment.check(config.augment)
    hyperparameters(config, 1)


def _check_manifold_mixup(config: Config) -> None:
    alpha, name = config.model.manifold_mixup, config.model.model
    if alpha == 0:
        return
    if not models.network(name).manifold_mixup:
        raise ConfigError(
            f"--manifold-mixup {alpha}: {name} has no layers that are marked for it; use 0, or one"
            f" of {models.names_of(models.with_manifold_mixup())}"
        )
    for flag in ("mixup", "cutmix"):
        if other := getattr(config.augment, flag):
            raise ConfigError(
                f"--manifold-mixup {alpha} and --{flag} {other} exclude each other: labels are"
                " mixed once; leave one of them out"
            )


def task_of(config: Config, info: DatasetInfo) -> tasks.Task:
    """What the network of a configuration learns.

    Args:
        config: of the run.
        info: of its dataset.

    Raises:
        ConfigError: when network, augmentation and dataset do not fit each other.
    """
    return tasks.build(models.network(config.model.model).task, config, info)


def unmixed(config: Config, info: DatasetInfo) -> tasks.Task:
    """The task whose instances are augmented in evaluation: as in training, but none is mixed.

    A mixed image has two labels, and would be answered with the class of its partner. The label
    of evaluation is that of the sample, so it is not smoothed either.

    Args:
        config: of the run.
        info: of its dataset.
    """
    return task_of(
        dataclasses.replace(
            config,
            augment=dataclasses.replace(config.augment, mixup=0.0, cutmix=0.0),
            model=dataclasses.replace(config.model, manifold_mixup=0.0),
            optimizer=dataclasses.replace(config.optimizer, label_smoothing=0.0),
        ),
        info,
    )


def assemble(
    config: Config,
    info: DatasetInfo,
    ghost_batch: int,
    instances: int = 1,
    home: Path | None = None,
) -> Experiment:
    """Builds the network with the weights of the run's seed, the same on every rank.

    Args:
        config: of the run.
        info: of its dataset.
        ghost_batch: instances that are normalised together.
        instances: b·K, that this rank trains on in a step; only a network that keeps a state for
            each of them asks for it.
        home: the folder that the run was started in, for a network of somebody's own.

    Raises:
        ConfigError: when network, augmentation and dataset do not fit each other, or the network
            of somebody's own cannot be made.
    """
    from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
    from ba_dist.models.precision import set_precision

    task = task_of(config, info)
    precision = set_precision(config.run.precision)
    norm = partial(
        GhostBatchNormalization,
        ghost_batch_size=ghost_batch,
        momentum=config.model.bn_momentum,
        repeatable=config.run.repeatable,
    )
    # Here, not earlier: whoever has prepared data may have drawn random numbers meanwhile.
    runtime.seed(config.run.seed)
    model = models.build(
        config.model.model,
        norm,
        instances=instances,
        home=home,
        manifold_mixup=config.model.manifold_mixup > 0,
        **task.facts,
    )
    return Experiment(config, task, model, precision)


def start_from(made: Experiment, info: DatasetInfo, comm: Comm) -> tuple[str, str]:
    """Sets the network to the weights of `--init-from` on rank 0; collective over the world.

    Args:
        made: whose network it is.
        info: of the dataset that it is trained on.
        comm: the world.

    Returns:
        The digest of what was read, and a line that says what was taken.

    Raises:
        UserError: on all ranks, naming the first variable that does not fit, or saying that the
            same numbers mean something else in the data of the run that they come from.
    """
    name = made.config.model.init_from or ""

    def take() -> tuple[str, str]:
        arrays = _weights(Path(name), made.model, info)
        try:
            count, new = weights.put(arrays, made.model)
        except weights.Unfit as error:
            raise ConfigError(
                f"--init-from {name} does not fit {made.config.model.model}: {error}"
                f"{weights.explain(arrays)}"
            ) from None
        fresh = f"; new for its {made.task.facts.get('classes')} classes: {', '.join(new)}"
        return weights.digest(arrays), f"{count} variables from {name}{fresh if new else ''}"

    found = comm.together(lambda: take() if comm.rank == 0 else None)
    digest, line = comm.world.share_object(found)
    return digest, line


def _weights(path: Path, model: Any, info: DatasetInfo) -> weights.Arrays:
    """The weights of a run's newest checkpoint, of one checkpoint, or of another file.

    Raises:
        ConfigError: when it is not there.
        DataError: when it was trained on other words than those of the dataset.
    """
    if not path.exists():
        raise ConfigError(f"--init-from {path} is not there")
    if path.is_dir():
        found = checkpoint.newest_good(checkpoint.folder_of(path))
    elif path.suffix == ".safetensors":
        found = checkpoint.load(path)
    else:
        return weights.read(path, model)
    info.check_fits(found.facts.get("data", {}).get("vocabulary"))
    arrays = variables.of_network(variables.fitting(found.arrays, model))
    return {name: array for name, array in arrays.items() if array.dtype.kind == "f"}


def train_step(made: Experiment, layout: Layout, comm: Comm) -> Any:
    """The `step.TrainStep` of an experiment, with its update rule and its average."""
    from ba_dist.models.recompute import Recomputed
    from ba_dist.optim.average import WeightAverage
    from ba_dist.optim.norm_matching import NormMatching
    from ba_dist.step import TrainStep

    config = made.config.optimizer
    rule = optim.build(made.model.trainable_variables, config)
    averages = config.ema > 0 or config.average_after is not None
    return TrainStep(
        made.task,
        made.model,
        rule,
        layout=layout,
        comm=comm,
        precision=made.precision,
        clip_norm=config.clip_norm,
        matching=NormMatching(layout, comm) if config.norm_matching else None,
        average=WeightAverage(made.model, config.ema or None) if averages else None,
        forward=Recomputed(made.model) if made.config.placement.recompute else made.model,
        told=_told(made.config),
        seed=made.config.run.seed,
        bucket_bytes=round(made.config.placement.bucket_mb * 2**20),
        wire=made.config.run.allreduce_dtype,
    )


def local_gradient(made: Experiment, layout: Layout) -> Any:
    """The `LocalGradient` of an experiment: gradients as its steps have them, and no update.

    Args:
        made: the experiment.
        layout: of the instances that it is given.
    """
    import tensorflow as tf

    from ba_dist.optim.local_gradient import LocalGradient

    return LocalGradient(
        made.task,
        made.model,
        layout=layout,
        precision=made.precision,
        loss_scale=tf.constant(1.0),
        seed=made.config.run.seed,
        told=_told(made.config),
    )


def _told(config: Config) -> list[str]:
    """What layers see of the hyperparameters of a step."""
    wanted = {
        "drop_path": config.model.drop_path > 0,
        "manifold_layer": config.model.manifold_mixup > 0,
        "carry": models.network(config.model.model).keeps_state,
    }
    return [name for name, sees in wanted.items() if sees]


def hyperparameters(
    config: Config, steps_per_epoch: int, factor: Callable[[int], float] = lambda step: 1.0
) -> Callable[[int], dict[str, float]]:
    """Step, from 0 → what the update rule and the network need in it.

    Args:
        config: of the run.
        steps_per_epoch: N // B.
        factor: on the learning rate of a step, as `data.order.rate_factor` gives it.

    Raises:
        ConfigError: when the regime has no rate at some step.
    """
    rule, model = config.optimizer, config.model
    rate = schedules.learning_rate(
        rule.lr,
        steps_per_epoch,
        shape=rule.lr_shape,
        power=rule.lr_power,
        scale=schedules.scale_factor(rule.lr_scale, batch_ratio(config)),
        warmup_steps=warm_up_steps(config, steps_per_epoch),
        warmup_from=rule.warmup_from,
    )
    share = schedules.growing(model.drop_path, model.drop_path_epochs * steps_per_epoch)
    ends = rule.weight_decay_epochs
    carries = models.network(model.model).keeps_state

    def at(step: int) -> dict[str, float]:
        hyper = optim.hyperparameters(rule, rate(step) * factor(step))
        if ends is not None and step >= ends * steps_per_epoch:
            hyper["weight_decay"] = 0.0
        if model.drop_path > 0:
            hyper["drop_path"] = share(step)
        if model.manifold_mixup > 0:
            hyper["manifold_layer"] = float(mixing.manifold_layer(config.run.seed, step))
        if rule.norm_matching:
            hyper["measure"] = float(step % rule.norm_matching == 0)
        if carries:  # the streams of a text begin anew in each epoch
            hyper["carry"] = float(step % steps_per_epoch > 0)
        return hyper

    return at


def warm_up_steps(config: Config, steps_per_epoch: int) -> float:
    """The length of the warm-up in steps; not whole where it ends in the middle of one."""
    rule = config.optimizer
    return rule.warmup_epochs * steps_per_epoch if rule.warmup_steps is None else rule.warmup_steps


@contextmanager
def evaluator(made: Experiment, source: Source, comm: Comm) -> Iterator[Any]:
    """The `evaluate.Evaluator` of an experiment on a source, with threads that read for it."""
    from ba_dist.evaluate import Evaluator

    config = made.config
    skip = config.data.on_corrupt == "skip"
    with workers(io_threads(config, source)) as pool:
        yield Evaluator(made.task, made.model, source, comm=comm, workers=pool, skip=skip)
