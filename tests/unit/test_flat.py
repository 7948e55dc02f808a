"""Tensors as one buffer, and back."""

import numpy as np
import pytest
import tensorflow as tf

from ba_dist.optim.flat import flat, flat_size, pieces

SHAPES = [(3, 5), (), (16,), (17, 2), (0,), (4, 8)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pieces_are_what_was_put_together_with_zeros_between(dtype):
    numbers = np.random.default_rng(0)
    tensors = [tf.constant(numbers.normal(size=shape), dtype) for shape in SHAPES]
    buffer = flat(tensors)
    assert buffer.shape == (flat_size(tensors),) and buffer.shape[0] % 16 == 0
    assert float(tf.reduce_sum(tf.abs(buffer))) == pytest.approx(
        sum(float(tf.reduce_sum(tf.abs(tensor))) for tensor in tensors)
    )
    found = pieces(buffer, [tensor.shape for tensor in tensors])
    for tensor, piece in zip(tensors, found, strict=True):
        np.testing.assert_array_equal(piece, tensor)


def test_a_piece_of_whole_lines_shares_the_memory_of_the_buffer():
    shapes = [tf.TensorShape(3), tf.TensorShape((40, 16))]

    def distance(buffer, piece):
        begins = (array.__array_interface__["data"][0] for array in (piece, buffer))
        return np.int64(next(begins) - next(begins))

    @tf.function
    def found(buffer):
        return tf.numpy_function(distance, [buffer, pieces(buffer, shapes)[1]], tf.int64)

    assert int(found(flat([tf.ones(shape) for shape in shapes]))) == 64
