"""Dropout and drop-path that depend on the instance: the copies of a sample differ by their masks.

Source: Srivastava et al. 2014, "Dropout"; "Augment Your Batch", section 4.4, where dropout takes
the place of input augmentation; Larsson et al. 2017, "FractalNet" (drop-path).
"""

import math
import zlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ba_dist.models.layers.microbatch import current
from ba_dist.rules.keys import Purpose, combine, hash64

# The constants of SplitMix64, as int64 because TensorFlow multiplies these on every device.
_GOLDEN, _MIX_1, _MIX_2 = (
    n - 2**64 for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


@keras.saving.register_keras_serializable("ba_dist")
class InstanceDropout(keras.layers.Layer):
    """Zeroes activations by a mask that is a function of the instance's key and of this layer.

        y[i, j] = x[i, j] / (1 - p)   where u(key_i, layer, j) ≥ p,  else 0

    So a copy has the same mask on any number of ranks, in any microbatch and after a resume, and
    two copies of a sample have different masks. Evaluation changes nothing.

    Args:
        rate: p, the share of activations that become zero, from 0 to below 1.
        stream: names this layer's masks; two layers of a network need two names.
        shared_axes: along which an instance's mask is the same; (1,) for "locked" dropout of a
            sequence [n, time, features] (Gal and Ghahramani 2016).

    Call: x float [n, …]; returns the same shape and dtype.

    Raises:
        ValueError: in training, when the step gave no keys (a script's own loop must open
            `models.layers.microbatch.microbatch(..., keys=keys)`).
    """

    def __init__(self, rate: float, stream: str, shared_axes: tuple[int, ...] = (), **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = rate
        self.stream = stream
        self.shared_axes = tuple(shared_axes)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        sides = enumerate(inputs.shape[1:], 1)
        shape = tuple(1 if axis in self.shared_axes else side for axis, side in sides)
        numbers = uniforms(keys_of(self.stream), self.stream, shape)
        kept = tf.cast(numbers >= self.rate, inputs.dtype)
        return inputs * kept / tf.constant(1 - self.rate, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"rate": self.rate, "stream": self.stream, "shared_axes": self.shared_axes}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("ba_dist")
class InstanceDropPath(keras.layers.Layer):
    """Zeroes all of an instance's activations on an edge, by its key and this layer.

        y[i] = x[i] / (1 - p)   where u(key_i, layer) ≥ p,  else 0

    p is that of the step (`--drop-path`), which grows as training goes on. Where the step has none,
    and in evaluation, nothing changes.

    Args:
        stream: names this layer's masks; two layers of a network need two names.

    Call: x float [n, …]; returns the same shape and dtype.

    Raises:
        ValueError: when the step has such a share and gave no keys.
    """

    def __init__(self, stream: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.stream = stream

    def call(self, inputs: Any, training: bool = False) -> Any:
        now = current()
        if not training or now is None or now.drop_path is None:
            return inputs
        rate = tf.cast(now.drop_path, tf.float32)
        numbers = uniforms(keys_of(self.stream), self.stream, (1,) * (len(inputs.shape) - 1))
        kept = tf.cast(numbers >= rate, inputs.dtype)
        return inputs * (kept / tf.cast(1 - rate, inputs.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stream": self.stream}


def keys_of(stream: str) -> Any:
    """The keys of the instances of this microbatch, uint64 [n].

    Raises:
        ValueError: when the step gave none.
    """
    now = current()
    if now is None or now.keys is None:
        raise ValueError(f"dropout {stream!r} needs the keys of the instances")
    return now.keys


def uniforms(keys: Any, stream: str, shape: Any) -> Any:
    """Random numbers in [0, 1) of each instance, drawn from its key alone.

    The numbers of `rules.keys.combine(Purpose.NOISE, key, stream, j)` for element j, made in the
    graph: multiples of 2^-24, of which float32 holds every one.

    Args:
        keys: uint64 [n].
        stream: names the use.
        shape: of one instance, all sides known.

    Returns:
        float32 [n, *shape].
    """
    positions = tf.range(math.prod(shape), dtype=tf.int64)[None, :]
    return tf.reshape(uniforms_at(keys, stream, positions), (-1, *shape))


def uniforms_at(keys: Any, stream: str, positions: Any) -> Any:
    """Those of the numbers of `uniforms` that stand at some positions.

    Args:
        keys: uint64 [n].
        stream: names the use.
        positions: int64 [n, k], or [1, k] for the same ones of all.

    Returns:
        float32 [n, k].
    """
    bits = _chain(_base(keys, stream)[:, None], positions)
    return tf.cast(_shift(bits, 40), tf.float32) * 2.0**-24


def kept(keys: Any, stream: str, shape: Any, rate: float) -> Any:
    """For each key, which elements of an array stay when a share of them is dropped.

    As u ≥ rate, with numbers that are multiples of 2^-16: the four of each hash
    `rules.keys.combine(Purpose.NOISE, key, stream, j)`, the lowest bits first. Matrices of weights
    are large, and so a mask costs a quarter.

    Args:
        keys: uint64 [k].
        stream: names the use.
        shape: of the array, all sides known.
        rate: share that is dropped.

    Returns:
        bool [k, *shape].
    """
    size = math.prod(shape)
    hashes = tf.range(-(-size // 4), dtype=tf.int64)[None, :]
    quarters = tf.bitcast(_chain(_base(keys, stream)[:, None], hashes), tf.uint16)
    numbers = tf.reshape(quarters, (-1, 4 * hashes.shape[1]))[:, :size]
    stays = tf.cast(numbers, tf.int32) >= round(rate * 2**16)
    return tf.reshape(stays, (-1, *shape))


def _base(keys: Any, stream: str) -> Any:
    """The hash of purpose, key and stream. What is known before the graph runs is hashed by numpy:
    a network of cells has over a hundred streams, whose hashes were most of its graph."""
    return _chain_hashed(_of_purpose(keys), hash64(zlib.crc32(stream.encode())))


def _of_purpose(keys: Any) -> Any:
    """The hash of purpose and key, made once for all layers of a microbatch."""
    now = current()
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    if now is None or graph is None or keys is not now.keys:
        return _chain(_constant(combine(Purpose.NOISE)), tf.bitcast(keys, tf.int64))
    if graph not in now.hashed_keys:
        hashed = _chain(_constant(combine(Purpose.NOISE)), tf.bitcast(keys, tf.int64))
        now.hashed_keys[graph] = hashed
    return now.hashed_keys[graph]


def _constant(value: Any) -> Any:
    return tf.constant(value.astype(np.int64))


def _chain_hashed(key: Any, hashed: Any) -> Any:
    """`_chain` with a part that numpy has hashed."""
    return _hash(tf.bitwise.bitwise_xor(key, _constant(hashed)))


def _chain(key: Any, part: Any) -> Any:
    """`rules.keys.combine` with one more part."""
    return _hash(tf.bitwise.bitwise_xor(key, _hash(part)))


def _hash(x: Any) -> Any:
    """SplitMix64 of int64 tensors, whose products wrap as those of uint64 do."""
    x = x + _GOLDEN
    x = tf.bitwise.bitwise_xor(x, _shift(x, 30)) * _MIX_1
    x = tf.bitwise.bitwise_xor(x, _shift(x, 27)) * _MIX_2
    return tf.bitwise.bitwise_xor(x, _shift(x, 31))


def _shift(x: Any, bits: int) -> Any:
    """Shifts to the right, zeros from the left: that of int64 would copy the sign."""
    shifted = tf.bitwise.right_shift(tf.bitcast(x, tf.uint64), tf.constant(bits, tf.uint64))
    return tf.bitcast(shifted, tf.int64)
