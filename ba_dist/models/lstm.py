"""Language models of stacked LSTMs whose input and output words share one matrix.

Source: Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models" (arXiv:1708.02182)
and its code (salesforce/awd-lstm-lm); "Augment Your Batch", table 2, takes its network for PTB.
"""

from dataclasses import dataclass
from typing import Any

import keras

from ba_dist.models.layers.dropout import InstanceDropout
from ba_dist.models.layers.recurrent import CarriedLSTM
from ba_dist.models.layers.words import WordEmbedding


@dataclass(frozen=True)
class Size:
    """How large a language model is, and how much of it is dropped in training.

    Args:
        layers: LSTMs; the last one is as wide as the embedding, whose matrix it shares.
        units: width of the others.
        embedding: width of a word's vector.
        word_drop: share of the words that an instance does not see.
        input_drop: share of the inputs of the first layer.
        hidden_drop: share of what goes from layer to layer.
        output_drop: share of what the last layer gives.
        weight_drop: share of the recurrent weights of each layer.
    """

    layers: int
    units: int
    embedding: int
    word_drop: float
    input_drop: float
    hidden_drop: float
    output_drop: float
    weight_drop: float


SIZES = {
    "awd": Size(3, 1150, 400, 0.1, 0.4, 0.25, 0.4, 0.5),
    "small": Size(2, 256, 128, 0.05, 0.2, 0.15, 0.2, 0.2),
}


def language_model(size: str, *, words: int, instances: int, norm: Any) -> Any:
    """A stack of LSTMs.

    Args:
        size: a name in `SIZES`.
        words: in the vocabulary.
        instances: rows of a step of this rank, each of which has a state.
        norm: not used; a language model has no normalisation.

    Returns:
        A Keras model: words int32 [n, t] → [logits [n, t, words], outputs of the last LSTM with
        dropout and without it, both [n, t, embedding]].
    """
    chosen = SIZES[size]

    def locked(rate: float, name: str) -> InstanceDropout:
        """Dropout whose mask is the same for all tokens of an instance."""
        return InstanceDropout(rate, name, shared_axes=(1,), name=name)

    tokens = keras.Input((None,), dtype="int32", name="tokens")
    embedding = WordEmbedding(words, chosen.embedding, chosen.word_drop, name="words")
    raw = embedding(tokens)
    dropped = locked(chosen.input_drop, "input_dropout")(raw)
    for i in range(chosen.layers):
        last = i == chosen.layers - 1
        raw = CarriedLSTM(
            chosen.embedding if last else chosen.units,
            instances,
            chosen.weight_drop,
            stream=f"lstm{i}",
            name=f"lstm{i}",
        )(dropped)
        rate = chosen.output_drop if last else chosen.hidden_drop
        dropped = locked(rate, f"dropout{i}")(raw)
    return keras.Model(tokens, [embedding(dropped, reverse=True), dropped, raw], name="lstm")
