"""Operations of a network: what images per second are measured against."""

import math
from typing import Any


def training_gflop(network: Any) -> float:
    """GFLOP of a training step on one image, a multiply-add being two.

        2 · Σ_layers (inputs of an output) · outputs, three times: forward, and backward with
        respect to weights and to the input, which the first layer leaves out

    Convolutions and dense layers alone count; they are nearly all of it.

    Args:
        network: functional Keras model.
    """
    forward = [count for layer in network.layers if (count := _forward(layer))]
    return (3 * sum(forward) - forward[0]) / 1e9


def _forward(layer: Any) -> int:
    """Of one image; 0 for a layer that multiplies by no matrix."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None or len(kernel.shape) not in (2, 4):
        return 0
    if type(layer).__name__ == "DepthwiseConv2D":  # an output has inputs of its own channel alone
        height, width = kernel.shape[:2]
        return 2 * height * width * math.prod(layer.output.shape[1:])
    return 2 * math.prod(kernel.shape[:-1]) * math.prod(layer.output.shape[1:])
