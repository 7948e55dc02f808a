"""The Transformer of translation, on rows of packed sentence pairs.

Each pair of a row sees itself alone: attention is masked to its own segment, and positions begin
anew with it, so a row gives what its pairs would give one by one.

Source: Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762; what the paper leaves
open (initial weights, where dropout is, no bias in attention) is as in its authors' code,
tensor2tensor, `transformer_base`.
"""

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from ba_dist.models.layers.attention import (
    AddAndNorm,
    FeedForward,
    MultiHeadAttention,
    SharedEmbedding,
    positions,
    same_segment,
    sinusoids,
)
from ba_dist.models.layers.dropout import InstanceDropout


@dataclass(frozen=True)
class Size:
    """How large a Transformer is.

    Args:
        width: of a token between layers.
        heads: of attention.
        layers: of the encoder, and as many of the decoder.
        hidden: width inside of a feed-forward layer.
        dropout: share that becomes zero wherever dropout is.
    """

    width: int
    heads: int
    layers: int
    hidden: int
    dropout: float = 0.1


SIZES = {
    "base": Size(512, 8, 6, 2048),  # table 3, first line
    "small": Size(128, 4, 3, 512),
}


class EncoderLayer(keras.layers.Layer):
    """Attention of the source to itself, then a feed-forward layer."""

    def __init__(self, size: Size, name: str):
        super().__init__(name=name)
        share = size.dropout
        self.attention = MultiHeadAttention(
            size.width, size.heads, share, f"{name}/attention/weights", name="attention"
        )
        self.attended = AddAndNorm(size.width, share, f"{name}/attention", name="attended")
        self.forward = FeedForward(
            size.width, size.hidden, share, f"{name}/forward/hidden", name="forward"
        )
        self.forwarded = AddAndNorm(size.width, share, f"{name}/forward", name="forwarded")

    def build(self, shape: Any) -> None:
        for part in (self.attention, self.attended, self.forward, self.forwarded):
            part.build(shape)

    def call(self, x: Any, mask: Any, training: bool = False) -> Any:
        y = self.attention(x, x, mask, training=training)
        x = self.attended(x, y, training=training)
        return self.forwarded(x, self.forward(x, training=training), training=training)


class DecoderLayer(keras.layers.Layer):
    """Attention to what stands before, then to the source, then a feed-forward layer."""

    def __init__(self, size: Size, name: str):
        super().__init__(name=name)
        width, heads, share = size.width, size.heads, size.dropout
        self.attention = MultiHeadAttention(
            width, heads, share, f"{name}/attention/weights", name="attention"
        )
        self.attended = AddAndNorm(width, share, f"{name}/attention", name="attended")
        self.crossing = MultiHeadAttention(
            width, heads, share, f"{name}/crossing/weights", name="crossing"
        )
        self.crossed = AddAndNorm(width, share, f"{name}/crossing", name="crossed")
        self.forward = FeedForward(
            width, size.hidden, share, f"{name}/forward/hidden", name="forward"
        )
        self.forwarded = AddAndNorm(width, share, f"{name}/forward", name="forwarded")

    def build(self, shape: Any) -> None:
        for part in (self.attention, self.attended, self.crossing, self.crossed):
            part.build(shape)
        self.forward.build(shape)
        self.forwarded.build(shape)

    def call(self, x: Any, before: Any, memory: Any, across: Any, training: bool = False) -> Any:
        """x [n, q, width] with its mask, memory [n, k, width] with its mask."""
        y = self.attention(x, x, before, training=training)
        x = self.attended(x, y, training=training)
        y = self.crossing(x, memory, across, training=training)
        x = self.crossed(x, y, training=training)
        return self.forwarded(x, self.forward(x, training=training), training=training)

    def step(
        self, x: Any, at: Any, kept: dict[str, Any], across: Any
    ) -> tuple[Any, dict[str, Any]]:
        """One more token of each row.

        Args:
            x: [n, 1, width], the token at position `at`.
            at: integer.
            kept: keys and values [n, h, T, d] of the tokens before and of the source.
            across: mask of the source.

        Returns:
            The layer's output [n, 1, width], and what is kept now.
        """
        rows = tf.range(tf.shape(kept["keys"])[2])
        here = (rows == at)[None, None, :, None]
        keys, values = self.attention.keys_and_values(x)
        kept = {
            **kept,
            "keys": tf.where(here, keys, kept["keys"]),
            "values": tf.where(here, values, kept["values"]),
        }
        until = (rows <= at)[None, None, None, :]
        x = self.attended(x, self.attention.attend(x, kept["keys"], kept["values"], until))
        y = self.crossing.attend(x, kept["source_keys"], kept["source_values"], across)
        x = self.crossed(x, y)
        return self.forwarded(x, self.forward(x)), kept


class Transformer(keras.Model):
    """Encoder and decoder with one embedding.

    Args:
        size: of it.
        vocabulary: number of subwords.

    Call: a mapping of int32 [n, tokens] each: `source` and `source_segments`; `shifted`, the target
    with a beginning before each sentence and without its end, and `target_segments`. Returns logits
    [n, target tokens, vocabulary].
    """

    def __init__(self, size: Size, vocabulary: int):
        super().__init__(name="transformer")
        self.size = size
        self.embedding = SharedEmbedding(vocabulary, size.width, name="embedding")
        self.source_dropout = InstanceDropout(size.dropout, "source")
        self.target_dropout = InstanceDropout(size.dropout, "target")
        self.encoder = [EncoderLayer(size, f"encoder{i}") for i in range(size.layers)]
        self.decoder = [DecoderLayer(size, f"decoder{i}") for i in range(size.layers)]

    def build(self, shape: Any = None) -> None:
        self.embedding.build((None, None))
        for layer in self.encoder + self.decoder:
            layer.build((None, None, self.size.width))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        memory = self.encode(inputs["source"], inputs["source_segments"], training)
        segments = inputs["target_segments"]
        count = tf.shape(segments)[1]
        earlier = tf.linalg.band_part(tf.ones((count, count), tf.bool), -1, 0)
        before = same_segment(segments, segments) & earlier
        across = same_segment(segments, inputs["source_segments"])
        x = self._embed(inputs["shifted"], positions(segments))
        x = self.target_dropout(x, training=training)
        for layer in self.decoder:
            x = layer(x, before, memory, across, training=training)
        return self.embedding(x, logits=True)

    def encode(self, source: Any, segments: Any, training: bool = False) -> Any:
        """What the decoder looks at, [n, source tokens, width], of tokens and segments int32."""
        mask = same_segment(segments, segments)
        x = self.source_dropout(self._embed(source, positions(segments)), training=training)
        for layer in self.encoder:
            x = layer(x, mask, training=training)
        return x

    def begin(self, source: Any, longest: int) -> list[dict[str, Any]]:
        """What `step` keeps of sentences, one in each row, for up to `longest` tokens.

        Args:
            source: int32 [n, source tokens], each with its end, and 0 behind it.
            longest: tokens that will be asked for at most.
        """
        memory = self.encode(source, tf.cast(source > 0, tf.int32))
        shape = (tf.shape(source)[0], self.size.heads, longest, self.size.width // self.size.heads)
        kept = []
        for layer in self.decoder:
            keys, values = layer.crossing.keys_and_values(memory)
            empty = tf.zeros(shape, keys.dtype)
            kept.append(
                {"keys": empty, "values": empty, "source_keys": keys, "source_values": values}
            )
        return kept

    def step(
        self, tokens: Any, at: Any, kept: list[dict[str, Any]], source: Any
    ) -> tuple[Any, list[dict[str, Any]]]:
        """The logits of the token that follows, [n, vocabulary], and what is kept now.

        Args:
            tokens: int32 [n], the token before it.
            at: integer, its position.
            kept: of `begin` or of the step before.
            source: int32 [n, source tokens].
        """
        at = tf.convert_to_tensor(at)
        x = self._embed(tokens[:, None], tf.reshape(at, (1, 1)))
        across = (source > 0)[:, None, None, :]
        new = []
        for layer, mine in zip(self.decoder, kept, strict=True):
            x, mine = layer.step(x, at, mine, across)
            new.append(mine)
        return self.embedding(x, logits=True)[:, 0], new

    def _embed(self, tokens: Any, at: Any) -> Any:
        x = self.embedding(tokens)
        return x + sinusoids(at, self.size.width, x.dtype)


def transformer(size: str, vocabulary: int, row_tokens: int, norm: Any) -> Any:
    """A Transformer of this size.

    Args:
        size: one of `SIZES`.
        vocabulary: number of subwords.
        row_tokens: of a row; it needs no weights.
        norm: makes ghost BatchNorm, of which it has none.
    """
    made = Transformer(SIZES[size], vocabulary)
    made.build()
    return made
