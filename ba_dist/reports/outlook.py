"""What a training would be, without starting it: layout, steps, memory, learning rates."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

from ba_dist import experiment, optim, runtime
from ba_dist.config import Config, adapted, layout_of, plan_steps
from ba_dist.data.catalog import open_alone
from ba_dist.models import tags
from ba_dist.rules.layout import Layout
from ba_dist.rules.plan import Plan
from ba_dist.run.report import opening


def outlook(config: Config, ranks: int) -> str:
    """What `ba-dist train` would do on so many ranks.

    The data is looked for and the network is built, as training does it; nothing else is made.

    Raises:
        UserError: what training would be refused with.
    """
    config = adapted(config)
    layout = layout_of(config, ranks)
    experiment.check(config)
    runtime.prepare(0, 1, runtime.cores())
    dataset = open_alone(config.data)
    plan = plan_steps(config, len(dataset.train), ranks)
    if config.placement.microbatch is None:
        size = layout.microbatch_within(runtime.default_microbatch())
        layout = dataclasses.replace(layout, microbatch=size)
    made = experiment.assemble(config, dataset.info, layout.ghost_batch, layout.instances_per_rank)
    epochs = plan.total_steps / plan.steps_per_epoch
    return "\n".join(
        [
            *opening(config, layout, dataset, plan.total_steps),
            f"{plan.steps_per_epoch} steps an epoch, {epochs:.4g} epochs;"
            f" {len(dataset.validation)} samples to evaluate on",
            "",
            *_table("memory of a rank", "at least", _memory(made, layout)),
            "",
            *_table("learning rate", "", _rates(config, plan)),
        ]
    )


def _memory(made: experiment.Experiment, layout: Layout) -> Iterator[tuple[str, str]]:
    """What must be there at the same time; TensorFlow itself takes some hundred MB more."""
    model, config = made.model, made.config
    weights = model.trainable_variables
    rule = optim.build(weights, config.optimizer)
    kept = _kept_by_an_instance(model) * layout.microbatch
    shown = {
        f"weights ({sum(_size(v) for v in weights):,} trained)": _bytes(model.variables),
        "gradients": _bytes(weights),
        f"slots of {config.optimizer.optimizer}": _bytes(rule.slots.values()),
        f"activations of a microbatch of {layout.microbatch}": kept,
        f"input: {_BATCHES} batches of {layout.instances_per_rank} instances": _input(made, layout),
    }
    yield from ((name, f"{size / 1e6:,.1f} MB") for name, size in shown.items())
    yield "together", f"{sum(shown.values()) / 1e6:,.1f} MB"
    yield "not counted", "TensorFlow itself, other activations, decoded records, the dataset"


_BATCHES = 2  # the one that is trained on, and the one that lies ready


def _input(made: experiment.Experiment, layout: Layout) -> int:
    """Bytes of instances, as floats, or as other numbers of four bytes."""
    shape = made.task.facts.get("image_shape", made.task.sample_shape)
    return _BATCHES * layout.instances_per_rank * math.prod(shape) * 4


def _kept_by_an_instance(model: Any) -> int:
    """Bytes of what layers with weights were given: their gradients need it.

    A lower bound: what other layers keep, and what is only there for a moment, comes on top.
    """
    kept = {}
    for layer in tags.layers(model):
        if layer.trainable_variables and not hasattr(layer, "layers"):
            given: Any = getattr(layer, "input", None) if layer._inbound_nodes else None
            if getattr(given, "shape", None) and None not in given.shape[1:]:
                size = _itemsize(layer.compute_dtype)
                kept[id(given)] = math.prod(given.shape[1:]) * size
    return sum(kept.values())


def _rates(config: Config, plan: Plan) -> Iterator[tuple[str, str]]:
    """The rate where the regime has a point, warm-up ends, and at the last step."""
    rule, last = config.optimizer, plan.total_steps - 1
    rate = experiment.hyperparameters(config, plan.steps_per_epoch)
    warm_up = experiment.warm_up_steps(config, plan.steps_per_epoch)
    points = [point[0] * plan.steps_per_epoch for point in rule.lr]
    steps = {math.ceil(step) for step in (0, warm_up, *points)}
    for step in sorted({step for step in steps if step < last} | {last}):
        epochs = step / plan.steps_per_epoch
        warm = "  (warm-up)" if step < warm_up else ""
        yield (
            f"after {epochs:.4g} epochs, step {step + 1}",
            f"{rate(step)['learning_rate']:.4g}{warm}",
        )


def _table(title: str, of_values: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = [(title, of_values), *((f"  {name}", value) for name, value in rows)]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}".rstrip() for name, value in rows]


def _size(variable: Any) -> int:
    return math.prod(variable.shape)


def _bytes(variables: Iterable[Any]) -> int:
    return sum(_size(v) * _itemsize(v.dtype) for v in variables)


def _itemsize(dtype: Any) -> int:
    import tensorflow as tf

    return int(tf.as_dtype(dtype).size)
