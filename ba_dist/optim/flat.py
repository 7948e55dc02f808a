"""Many tensors as one flat buffer, and back without a copy.

A slice of a buffer shares its memory, but only where it begins and ends at a multiple of 64 bytes:
every tensor is followed by zeros up to there. Otherwise TensorFlow copies each of the pieces, which
are too many for the cache.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

_ALIGNED = 16  # elements: 64 bytes of float32, 128 of float64


def flat_size(tensors: Sequence[Any]) -> int:
    """Elements of `flat`."""
    return sum(-(-tensor.shape.num_elements() // _ALIGNED) * _ALIGNED for tensor in tensors)


def flat(tensors: Sequence[Any]) -> Any:
    """One tensor behind the other, [Σ elements and zeros].

    Args:
        tensors: of one dtype, at least one, with shapes that are known.
    """
    parts = []
    for tensor in tensors:
        parts.append(tf.reshape(tensor, [-1]))
        if gap := -tensor.shape.num_elements() % _ALIGNED:
            parts.append(tf.zeros(gap, tensor.dtype))
    return tf.concat(parts, axis=0)


def pieces(buffer: Any, shapes: Sequence[Any]) -> list[Any]:
    """The tensors of `flat`, of these shapes."""
    found, start = [], 0
    for shape in shapes:
        size = shape.num_elements()
        gap = -size % _ALIGNED
        piece = buffer[start : start + size + gap]
        found.append(tf.reshape(piece[:size] if gap else piece, shape))
        start += size + gap
    return found
