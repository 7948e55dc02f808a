"""Attention and what stands around it in a Transformer.

Source: Vaswani et al. 2017, arXiv:1706.03762. Shape suffixes: n rows, q queries, k keys, h heads,
d width of a head.
"""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ba_dist.models.layers.dropout import InstanceDropout

_EPSILON = 1e-6  # of layer normalisation, as the authors' code (tensor2tensor) has it


class MultiHeadAttention(keras.layers.Layer):
    """Every query looks at the keys that its mask allows, with several heads side by side.

        softmax(Q·Kᵀ / √d)·V  for each head, joined and projected; dropout on the softmax

    Projections have no bias, as in the authors' code.

    Args:
        width: of queries, keys and result.
        heads: that divide the width.
        dropout: share of the weights of attention that becomes zero.
        stream: names the masks of that.

    Call: x [n, q, width], memory [n, k, width], mask bool [n, 1, q, k]; returns [n, q, width].
    """

    def __init__(self, width: int, heads: int, dropout: float, stream: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.width, self.heads = width, heads
        self.query, self.key, self.value, self.joined = (
            keras.layers.Dense(width, use_bias=False, name=name)
            for name in ("query", "key", "value", "joined")
        )
        self.dropout = InstanceDropout(dropout, stream)

    def build(self, shape: Any) -> None:
        for layer in (self.query, self.key, self.value, self.joined):
            layer.build((None, None, self.width))

    def call(self, x: Any, memory: Any, mask: Any, training: bool = False) -> Any:
        return self.attend(x, *self.keys_and_values(memory), mask, training=training)

    def keys_and_values(self, memory: Any) -> tuple[Any, Any]:
        """Keys and values [n, h, k, d] of what is looked at; decoding keeps them."""
        return self._heads(self.key(memory)), self._heads(self.value(memory))

    def attend(self, x: Any, keys: Any, values: Any, mask: Any, training: bool = False) -> Any:
        """As a call, with keys and values that are there already."""
        queries = self._heads(self.query(x))
        scale = 1 / math.sqrt(self.width // self.heads)
        scores = tf.matmul(queries, keys, transpose_b=True) * tf.constant(scale, queries.dtype)
        if scores.dtype.size < 4:  # exponents of half precision are too coarse
            scores = tf.cast(scores, tf.float32)
        weights = tf.nn.softmax(tf.where(mask, scores, scores.dtype.min))
        weights = self.dropout(tf.cast(weights, values.dtype), training=training)
        found = tf.transpose(tf.matmul(weights, values), (0, 2, 1, 3))
        return self.joined(tf.reshape(found, tf.shape(x)))

    def _heads(self, x: Any) -> Any:
        shape = tf.shape(x)
        parts = tf.reshape(x, (shape[0], shape[1], self.heads, self.width // self.heads))
        return tf.transpose(parts, (0, 2, 1, 3))


class FeedForward(keras.layers.Layer):
    """relu(x·W₁ + b₁)·W₂ + b₂, the same for each token; dropout on the hidden layer.

    Call: x [n, q, width]; returns the same shape.
    """

    def __init__(self, width: int, hidden: int, dropout: float, stream: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.width, self.hidden_width = width, hidden
        self.hidden = keras.layers.Dense(hidden, activation="relu", name="hidden")
        self.outer = keras.layers.Dense(width, name="outer")
        self.dropout = InstanceDropout(dropout, stream)

    def build(self, shape: Any) -> None:
        self.hidden.build((None, None, self.width))
        self.outer.build((None, None, self.hidden_width))

    def call(self, x: Any, training: bool = False) -> Any:
        return self.outer(self.dropout(self.hidden(x), training=training))


class AddAndNorm(keras.layers.Layer):
    """norm(x + dropout(y)), which ends each part of a layer ("post-norm", as published).

    Call: x and y [n, q, width]; returns the same shape.
    """

    def __init__(self, width: int, dropout: float, stream: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = width
        self.norm = keras.layers.LayerNormalization(epsilon=_EPSILON, name="norm")
        self.dropout = InstanceDropout(dropout, stream)

    def build(self, shape: Any) -> None:
        self.norm.build((None, None, self.width))

    def call(self, x: Any, y: Any, training: bool = False) -> Any:
        return self.norm(x + self.dropout(y, training=training))


class SharedEmbedding(keras.layers.Layer):
    """One matrix E for what goes in on both sides and for what comes out (section 3.4).

        √width · E[token]        and        x·Eᵀ

    Call: int tokens [n, q] → [n, q, width]; with `logits` x [n, q, width] → [n, q, vocabulary].
    """

    def __init__(self, vocabulary: int, width: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.vocabulary, self.width = vocabulary, width

    def build(self, shape: Any) -> None:
        self.embeddings = self.add_weight(
            shape=(self.vocabulary, self.width),
            initializer=keras.initializers.RandomNormal(stddev=self.width**-0.5),
            name="embeddings",
        )

    def call(self, x: Any, logits: bool = False) -> Any:
        matrix = tf.cast(self.embeddings.value, self.compute_dtype)
        if logits:
            rows = tf.reshape(x, (-1, self.width))
            found = tf.matmul(rows, matrix, transpose_b=True)
            return tf.reshape(found, (tf.shape(x)[0], tf.shape(x)[1], self.vocabulary))
        return tf.gather(matrix, x) * tf.constant(math.sqrt(self.width), matrix.dtype)


def positions(segments: Any) -> Any:
    """Where each token stands in its own segment, from 0: int32 [n, q].

        i - Σ_j [0 < segment_j < segment_i]

    Args:
        segments: int32 [n, q], which pair of its row a token belongs to: 1, 2, … in this order, 0
            behind the last one.
    """
    before = (segments[:, None, :] < segments[:, :, None]) & (segments[:, None, :] > 0)
    earlier = tf.reduce_sum(tf.cast(before, tf.int32), 2)
    return tf.range(tf.shape(segments)[1])[None, :] - earlier


def same_segment(queries: Any, keys: Any) -> Any:
    """bool [n, 1, q, k]: which tokens belong together, of segments int32 [n, q] and [n, k]."""
    return ((queries[:, :, None] == keys[:, None, :]) & (keys[:, None, :] > 0))[:, None]


def sinusoids(positions: Any, width: int, dtype: Any) -> Any:
    """What tells a token's position, [*positions, width] (section 3.5).

    sin(p / 10000^(2i/width)) in column 2i, the cosine of it in column 2i+1.

    Args:
        positions: integers of any shape.
        width: of a token.
        dtype: of the result; it is computed in float32 or better.
    """
    exact = tf.float64 if tf.as_dtype(dtype) == tf.float64 else tf.float32
    rates = np.power(10_000.0, -np.arange(0, width, 2) / width)
    angles = tf.cast(positions, exact)[..., None] * tf.constant(rates, exact)
    pairs = tf.stack([tf.sin(angles), tf.cos(angles)], -1)
    shape = tf.concat([tf.shape(positions), [width]], 0)
    return tf.cast(tf.reshape(pairs, shape), dtype)
