"""Words as vectors, and back: one matrix for both, and dropout of whole words."""

from typing import Any

import keras
import tensorflow as tf

from ba_dist.models.layers.dropout import keys_of, uniforms_at
from ba_dist.models.tags import ADAPT, DECAY


@keras.saving.register_keras_serializable("ba_dist")
class WordEmbedding(keras.layers.Layer):
    """A vector for each word; called with `reverse`, the logits of the words from a vector.

        forward  y = E[word] / (1 - p)   where u(key_i, layer, word) ≥ p,  else 0
        reverse  y = E·x + b

    So an instance drops a word wherever it stands in its span, and copies drop different words.
    Evaluation drops nothing.

    Args:
        words: in the vocabulary.
        width: of a vector.
        rate: p, the share of the words that are dropped in training.
        stream: names this layer's masks.

    Call: int32 [n, t] → float [n, t, width]; reverse: float [n, t, width] → [n, t, words] in
        the precision of the weights.

    Sources: Press and Wolf 2017, "Using the Output Embedding to Improve Language Models"; Gal and
    Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks".
    """

    tags = {"embeddings": (DECAY, ADAPT)}

    def __init__(
        self, words: int, width: int, rate: float = 0.0, stream: str = "words", **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.words, self.width = words, width
        self.rate, self.stream = rate, stream

    def build(self, input_shape: Any) -> None:
        """Vectors begin uniform in ±0.1, biases at zero, as in the code of AWD-LSTM."""
        self.embeddings = self.add_weight(
            shape=(self.words, self.width),
            initializer=keras.initializers.RandomUniform(-0.1, 0.1),
            name="embeddings",
        )
        self.output_bias = self.add_weight(
            shape=(self.words,), initializer="zeros", name="output_bias"
        )

    def call(self, inputs: Any, reverse: bool = False, training: bool = False) -> Any:
        embeddings = tf.convert_to_tensor(self.embeddings)
        if reverse:
            rows = tf.reshape(inputs, (-1, self.width))
            logits = tf.matmul(rows, embeddings, transpose_b=True) + self.output_bias
            sides = tf.shape(inputs)
            found = tf.reshape(logits, (sides[0], sides[1], self.words))
            found.set_shape((*inputs.shape[:2], self.words))
            return tf.cast(found, self.variable_dtype)  # losses of half precision would be coarse
        vectors = tf.gather(embeddings, inputs)
        if not training or self.rate == 0:
            return vectors
        numbers = uniforms_at(keys_of(self.stream), self.stream, tf.cast(inputs, tf.int64))
        there = tf.cast(numbers >= self.rate, vectors.dtype)
        return vectors * (there / tf.constant(1 - self.rate, vectors.dtype))[:, :, None]

    def compute_output_spec(
        self, inputs: Any, reverse: bool = False, training: bool = False
    ) -> Any:
        if reverse:
            return keras.KerasTensor((*inputs.shape[:2], self.words), self.variable_dtype)
        return keras.KerasTensor((*inputs.shape, self.width), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        names = ("words", "width", "rate", "stream")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
