"""A language model: which word comes next, told from all words before it in a stream of text.

The copies of a sample differ by the masks of the network's dropout alone.

Shape suffixes: n instances, t tokens of a span, v words of the vocabulary, h width of a layer.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ba_dist.config import Config, options
from ba_dist.data.batch import Array, Int64s, Parameters
from ba_dist.data.sources.text import TextInfo, scored_tokens
from ba_dist.errors import ConfigError
from ba_dist.rules import streams
from ba_dist.rules.keys import Uint64s
from ba_dist.tasks.task import Field, Loss

# Beside those of augmentation; the words of a text stay in their order.
_OF_OTHERS = ("label_smoothing", "shuffle")
_NOTHING = -1  # behind the end of a text: neither read nor scored


class LanguageModel:
    """The task of a text; see `Task` for what each method is.

    Args:
        info: facts of the text.
        activation: α, weight of the activation regularisation.
        slowness: β, weight of the temporal activation regularisation.
    """

    unit = "tokens"
    augmented = "tokens"
    metrics: Mapping[str, str] = {"token_loss": ".3f"}
    validation: Mapping[str, str] = {"val_loss": ".3f", "val_perplexity": ".1f"}
    judged_by = "val_perplexity"
    less_is_better = True
    headline = "validation perplexity"
    schema: Mapping[str, Field] = {"tokens": Field("int32", 2), "targets": Field("int32", 2)}

    def __init__(self, info: TextInfo, activation: float = 0.0, slowness: float = 0.0):
        self.info = info
        self.activation, self.slowness = activation, slowness
        self.sample_shape: tuple[int, ...] = (0,)
        self.facts: Mapping[str, Any] = {"words": info.words}
        self._scored = scored_tokens(info)
        # A quarter of the logits: a row of an image stands for layers of many more activations.
        self.row_size = self._scored * info.words // 4
        self._row = 1 + max(info.context + self._scored, streams.longest(info.span))

    # --- instances --------------------------------------------------------------------------------

    def draw(self, keys: Uint64s, shapes: Int64s, ghost_batch: int) -> Parameters:
        return {}  # nothing is changed in a text: masks are drawn inside the network

    def allocate(self, count: int) -> Array:
        return np.full((count, self._row), _NOTHING, np.int32)

    def render(self, sample: Array, drawn: Parameters, i: int, out: Array) -> None:
        self.plain(sample, out)

    def pack(self, rows: Array, labels: Int64s, drawn: Parameters) -> dict[str, Array]:
        """The tokens of a step, whose rows are all of one length: no filling is left."""
        length = int((rows != _NOTHING).sum(1).max())
        return {"rows": rows[:, :length]}

    def finish(self, packed: Mapping[str, Any]) -> dict[str, Any]:
        return _read_and_told(packed["rows"])

    def plain(self, sample: Array, out: Array) -> None:
        out[: len(sample)] = sample
        out[len(sample) :] = _NOTHING

    def finish_plain(self, rows: Array, labels: Int64s) -> dict[str, Any]:
        return _read_and_told(rows[:, : 1 + self.info.context + self._scored])

    # --- learning ---------------------------------------------------------------------------------

    def loss(self, model: Any, batch: Mapping[str, Any]) -> Loss:
        """Σ over tokens of the cross entropy, and of what holds the last layer's activations small:

            -log p(target)  +  α · mean_h dropped²  +  β · mean_h (raw_t - raw_{t-1})² · t/(t-1)

        over the weight of the tokens, so that α and β multiply means over all activations, as in
        the source. `token_loss` is the cross entropy alone; its exponential is the perplexity.

        Source: Merity et al. 2018 (arXiv:1708.02182), section 4.6.
        """
        import tensorflow as tf

        logits_ntv, dropped_nth, raw_nth = model(batch["tokens"], training=True)
        losses, there = _losses(logits_ntv, batch["targets"])
        entropy, weight = tf.reduce_sum(losses), tf.reduce_sum(there)
        total = entropy
        width = raw_nth.shape[-1]
        if self.activation:
            squares = tf.reduce_sum(tf.square(tf.cast(dropped_nth, entropy.dtype)))
            total += self.activation / width * squares
        if self.slowness:
            raw_nth = tf.cast(raw_nth, entropy.dtype)
            squares = tf.reduce_sum(tf.square(raw_nth[:, 1:] - raw_nth[:, :-1]))
            tokens = tf.cast(tf.shape(raw_nth)[1], entropy.dtype)
            total += self.slowness / width * squares * tokens / tf.maximum(tokens - 1, 1)
        return Loss(total, weight, {"token_loss": (entropy, weight)})

    def predict(self, model: Any, batch: Mapping[str, Any]) -> Any:
        """The logits of the tokens that are scored, [n, scored, v]."""
        return model(batch["tokens"], training=False)[0][:, -self._scored :]

    def scores(self, answers: Any, batch: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """`val_loss`, the cross entropy of a token, and `val_perplexity`, made of it."""
        import tensorflow as tf

        losses, there = _losses(answers, batch["targets"][:, -self._scored :])
        pair = (tf.reduce_sum(losses, 1), tf.reduce_sum(there, 1))
        return {"val_loss": pair, "val_perplexity": pair}

    def results(self, ratios: Mapping[str, float]) -> dict[str, float]:
        """Perplexity = exp(mean cross entropy); infinite where that is beyond float64."""
        mean = ratios["val_perplexity"]
        found = math.exp(mean) if mean < 700 else mean * math.inf
        return {**ratios, "val_perplexity": found}


def language_model(config: Config, info: TextInfo) -> LanguageModel:
    """The task of a configuration.

    Raises:
        ConfigError: naming the flags that a text has no use for.
    """
    usual = Config("usual")
    odd = [
        option.flag
        for option in options()
        if (option.part == "augment" or option.name in _OF_OTHERS)
        and option.of(config) != option.of(usual)
    ]
    if odd:
        raise ConfigError(
            f"{', '.join(odd)}: nothing of that is done to the words of {info.name}; leave it out."
            " Copies differ by the dropout of the network"
        )
    return LanguageModel(info, config.model.activation_penalty, config.model.slowness_penalty)


def _read_and_told(rows: Any) -> dict[str, Any]:
    """Each token is told from those before it."""
    import tensorflow as tf

    rows = tf.convert_to_tensor(rows)
    return {"tokens": tf.maximum(rows[:, :-1], 0), "targets": rows[:, 1:]}


def _losses(logits: Any, targets: Any) -> tuple[Any, Any]:
    """(cross entropy of each token, 1 where there is one to be told, else 0), both [n, t]."""
    import tensorflow as tf

    there = tf.cast(targets != _NOTHING, logits.dtype)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(targets, 0), logits)
    return losses * there, there
