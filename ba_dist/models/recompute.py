"""Recomputation: the backward pass computes activations again that the forward pass did not keep.

    memory of n activations: n  →  about 2·√n      time: one more forward pass, about a third

A network is cut into about √n parts. The forward pass keeps what passes from part to part; the
backward pass runs a part once more before it differentiates it.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from ba_dist.errors import ConfigError
from ba_dist.models.layers.microbatch import current, enter


@dataclass(frozen=True)
class _Part:
    """Some consecutive layers; tensors are named by the position of their node in the order."""

    network: Any
    inputs: list[int]
    outputs: list[int]


class Recomputed:
    """A network in training that keeps only what passes between its parts.

    Args:
        model: functional Keras model, whose variables are used as they are.

    Call: as the model itself, in training.

    Raises:
        ConfigError: when the network is no functional model, whose layers are not known.
    """

    def __init__(self, model: Any):
        # Keras has no public way to see which layer is called with what; `_nodes` reads it.
        if not hasattr(model, "_nodes_by_depth"):
            raise ConfigError(
                "--recompute needs a network made as keras.Model(inputs, outputs); this one is a"
                " class of its own"
            )
        self._model = model
        names = {id(tensor): i for i, tensor in enumerate(_tensors(model))}
        self._inputs = [names[id(tensor)] for tensor in model.inputs]
        self._outputs = [names[id(tensor)] for tensor in model.outputs]
        self._parts = [_part(nodes, wanted, names) for nodes, wanted in _cut(model)]

    def __call__(self, inputs: Any, training: bool = True) -> Any:
        known = dict(zip(self._inputs, tf.nest.flatten(inputs), strict=True))
        for part in self._parts:
            made = _again_in_backward(part.network, training)(*(known[i] for i in part.inputs))
            known |= zip(part.outputs, tf.nest.flatten(made), strict=True)
        answers = [known[i] for i in self._outputs]
        return tf.nest.pack_sequence_as(self._model._outputs_struct, answers)


def _again_in_backward(network: Any, training: bool) -> Any:
    """The network as a function that is computed once more in the backward pass.

    Layers must not move their state a second time, so the second pass is told that it is one. The
    backward pass is built when the step's microbatch is over: it is entered anew.
    """
    now = current()
    passes = iter([now, dataclasses.replace(now, again=True) if now else None])

    def run(*inputs: Any) -> Any:
        moment = next(passes)
        with enter(moment) if moment else nullcontext():
            return network(list(inputs), training=training)

    return tf.recompute_grad(run)


# --- where a network is cut -----------------------------------------------------------------------


def _tensors(model: Any) -> Iterator[Any]:
    for node in _nodes(model):
        yield from node.output_tensors


def _nodes(model: Any) -> list[Any]:
    """The calls of layers, each behind those that it needs."""
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def _cut(model: Any) -> Iterator[tuple[list[Any], list[Any]]]:
    """(calls of layers, what later parts or the answer need of them) of each part.

    Parts have about as many activations each, and end where as few tensors as possible pass on.
    """
    nodes = _nodes(model)
    calls = [node for node in nodes if not node.is_input]
    last = _last_use(model, calls)
    open_after = [
        sum(last.get(id(t), -1) > i for node in calls[: i + 1] for t in node.output_tensors)
        for i in range(len(calls))
    ]
    fewest = max(1, sorted(open_after)[len(calls) // 4])
    narrow = [i for i, count in enumerate(open_after) if count <= fewest]
    sizes = [sum(math.prod(t.shape[1:]) for t in node.output_tensors) for node in calls]
    goal, size, begin = sum(sizes) / max(1.0, math.sqrt(len(narrow))), 0, 0
    for i in range(len(calls)):
        size += sizes[i]
        if i + 1 == len(calls) or (i in narrow and size >= goal):
            part = calls[begin : i + 1]
            yield part, [t for node in part for t in node.output_tensors if last[id(t)] > i]
            size, begin = 0, i + 1


def _last_use(model: Any, calls: Sequence[Any]) -> dict[int, int]:
    """Tensor → position of the last call that takes it; beyond all of them for an answer."""
    last = {id(t): -1 for node in calls for t in node.output_tensors}
    for i, node in enumerate(calls):
        last |= {id(tensor): i for tensor in node.input_tensors}
    return last | {id(tensor): len(calls) for tensor in model.outputs}


def _part(nodes: list[Any], wanted: list[Any], names: dict[int, int]) -> _Part:
    made = {id(tensor) for node in nodes for tensor in node.output_tensors}
    taken = {id(t): t for node in nodes for t in node.input_tensors if id(t) not in made}
    network = keras.Model(list(taken.values()), wanted)
    return _Part(network, [names[i] for i in taken], [names[id(t)] for t in wanted])
