"""Translation of sentences: which subword comes next, given the source and what stands before it?

Copies of a sample differ by their dropout masks alone. Shape suffixes: n instances, t tokens.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ba_dist.config import Config
from ba_dist.data.batch import Array, Int64s, Parameters
from ba_dist.data.sources import PairsInfo
from ba_dist.data.text.subwords import BEGIN
from ba_dist.errors import ConfigError
from ba_dist.rules.keys import Uint64s
from ba_dist.tasks.task import Field, Loss

# Tokens that are evaluated at once: their logits are the largest thing that is in memory.
_EVALUATED_TOKENS = 2048


class Translation:
    """The task of rows of sentence pairs; see `Task` for what each method is.

    Args:
        info: of the dataset.
        smoothing: ε, the share of a label that is spread over all subwords.
    """

    unit = "tokens"
    augmented = "target"
    metrics: Mapping[str, str] = {"token_accuracy": ".1%"}
    validation: Mapping[str, str] = {"val_loss": ".3f", "val_token_accuracy": ".1%"}
    judged_by = "val_token_accuracy"
    less_is_better = False
    headline = "subwords that are right"

    def __init__(self, info: PairsInfo, smoothing: float = 0.0):
        self.info = info
        self.smoothing = smoothing
        self.sample_shape: tuple[int, ...] = (4, info.row_tokens)
        self.row_size = 4 * info.row_tokens  # `predict` keeps the logits of a few rows alone
        names = ("source", "source_segments", "shifted", "target", "target_segments")
        self.schema: Mapping[str, Field] = {name: Field("int32", 2) for name in names}
        self.facts: Mapping[str, Any] = {
            "vocabulary": info.vocabulary,
            "row_tokens": info.row_tokens,
        }

    # --- instances --------------------------------------------------------------------------------

    def draw(self, keys: Uint64s, shapes: Int64s, ghost_batch: int) -> Parameters:
        return {}

    def allocate(self, count: int) -> Array:
        return np.empty((count, *self.sample_shape), np.int32)

    def render(self, sample: Array, drawn: Parameters, i: int, out: Array) -> None:
        out[:] = sample

    def pack(self, rows: Array, labels: Int64s, drawn: Parameters) -> dict[str, Array]:
        return {"rows": rows}

    def finish(self, packed: Mapping[str, Any]) -> dict[str, Any]:
        return _unpacked(packed["rows"])

    def plain(self, sample: Array, out: Array) -> None:
        out[:] = sample

    def finish_plain(self, rows: Array, labels: Int64s) -> dict[str, Any]:
        return _unpacked(rows)

    # --- learning ---------------------------------------------------------------------------------

    def loss(self, model: Any, batch: Mapping[str, Any]) -> Loss:
        """Cross entropy with the smoothed label, of all target tokens that are not padding.

            (1-ε)·(-log p_target) + ε·mean over the vocabulary of (-log p)

        Source: Vaswani et al. 2017, section 5.4; the formula is that of classification.
        """
        import tensorflow as tf

        losses, hits, there = _compare(model(_seen(batch), training=True), batch, self.smoothing)
        weight = tf.reduce_sum(there)
        pair = (tf.reduce_sum(hits), weight)
        return Loss(tf.reduce_sum(losses), weight, {"token_accuracy": pair})

    def predict(self, model: Any, batch: Mapping[str, Any]) -> Any:
        """Loss, without smoothing, and hit of each target token, [n, t, 2]; not all logits.

        A few rows at a time, and nothing for those that only fill a batch up.
        """
        import tensorflow as tf

        rows, tokens = batch["target"].shape
        size = min(max(1, _EVALUATED_TOKENS // tokens), rows)
        filling = -rows % size
        parts = {
            name: tf.reshape(tf.pad(x, ((0, filling), (0, 0))), (-1, size, tokens))
            for name, x in batch.items()
        }
        dtype = model.variables[0].dtype

        def looked_at(part: Mapping[str, Any]) -> Any:
            losses, hits, _ = _compare(model(_seen(part), training=False), part)
            return tf.cast(tf.stack([losses, hits], -1), dtype)

        def answer(part: Mapping[str, Any]) -> Any:
            return tf.cond(
                tf.reduce_any(part["target_segments"] > 0),
                lambda: looked_at(part),
                lambda: tf.zeros((size, tokens, 2), dtype),
            )

        signature = tf.TensorSpec((size, tokens, 2), dtype)
        found = tf.map_fn(answer, parts, fn_output_signature=signature, parallel_iterations=1)
        return tf.reshape(found, (-1, tokens, 2))[:rows]

    def scores(self, answers: Any, batch: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """`val_loss`, the cross entropy, and `val_token_accuracy`, both a mean over tokens."""
        import tensorflow as tf

        there = tf.reduce_sum(tf.cast(batch["target_segments"] > 0, answers.dtype), 1)
        losses, hits = tf.unstack(tf.reduce_sum(answers, 1), axis=1)
        return {"val_loss": (losses, there), "val_token_accuracy": (hits, there)}

    def results(self, ratios: Mapping[str, float]) -> dict[str, float]:
        return dict(ratios)


def translation(config: Config, info: PairsInfo) -> Translation:
    """The task of a configuration.

    Raises:
        ConfigError: when flags for images are set.
    """
    augment = config.augment
    usual = type(augment)()
    if augment != usual:
        changed = [name for name, v in vars(augment).items() if v != getattr(usual, name)]
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise ConfigError(
            f"{flags}: sentences have no augmentation for images; copies of a row differ by their"
            " dropout masks"
        )
    return Translation(info, config.optimizer.label_smoothing)


def _unpacked(rows: Any) -> dict[str, Any]:
    """What the network reads and is told, of packed pairs."""
    import tensorflow as tf

    source, source_segments, target, segments = tf.unstack(tf.convert_to_tensor(rows), axis=1)
    # One to the right: a token is told from those before it, the first of a pair from BEGIN.
    moved, before = (tf.pad(x[:, :-1], ((0, 0), (1, 0))) for x in (target, segments))
    return {
        "source": source,
        "source_segments": source_segments,
        "shifted": tf.where(segments == before, moved, BEGIN),
        "target": target,
        "target_segments": segments,
    }


def _seen(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the network gets of a batch."""
    return {n: batch[n] for n in ("source", "source_segments", "shifted", "target_segments")}


def _compare(logits: Any, batch: Mapping[str, Any], smoothing: float = 0.0) -> tuple[Any, ...]:
    """(loss, whether it is right, whether it counts) of each token, [n, t] in float32 or better."""
    import tensorflow as tf

    if logits.dtype.size < 4:
        logits = tf.cast(logits, tf.float32)
    target = batch["target"]
    there = tf.cast(batch["target_segments"] > 0, logits.dtype)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)
    if smoothing:
        # -log p = log Σ exp - logit, and its mean over the vocabulary.
        even = tf.reduce_logsumexp(logits, -1) - tf.reduce_mean(logits, -1)
        losses = (1 - smoothing) * losses + smoothing * even
    right = tf.cast(tf.argmax(logits, -1, tf.int32) == target, logits.dtype)
    return losses * there, right * there, there
