"""Classification of images: which of the classes is it?

Shape suffixes: n instances, H height, W width, C channels.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ba_dist.config import Config
from ba_dist.data.augment import Augmentation, Parameters, mixing
from ba_dist.data.augment.augmentation import MANIFOLD
from ba_dist.data.batch import Array, Int64s
from ba_dist.data.sources import Image, ImageInfo
from ba_dist.rules.keys import Uint64s, uniforms
from ba_dist.tasks.task import Field, Loss

# From so many classes on, the right one among the first five answers counts as well.
TOP5_CLASSES = 100


class Classification:
    """The task of images and classes; see `Task` for what each method is.

    Args:
        augmentation: makes the copies of an image, and plain images for evaluation.
        smoothing: ε, the share of a label that is spread over all classes.
        auxiliary: weight of the loss of each auxiliary head.
        manifold: α of manifold mixup, which a network is told of beside the images; 0 for none.
    """

    unit = "images"
    augmented = "images"
    metrics: Mapping[str, str] = {"accuracy": ".1%"}
    validation: Mapping[str, str] = {"val_loss": ".3f", "val_top1": ".1%"}
    judged_by = "val_top1"
    less_is_better = False
    headline = "validation accuracy"

    def __init__(
        self,
        augmentation: Augmentation,
        smoothing: float = 0.0,
        auxiliary: float = 0.0,
        manifold: float = 0.0,
    ):
        self.augmentation = augmentation
        self.smoothing = smoothing
        if augmentation.info.classes >= TOP5_CLASSES:
            self.validation = {**self.validation, "val_top5": ".1%"}
        self.auxiliary = auxiliary
        self.manifold = manifold
        config, classes = augmentation.config, augmentation.info.classes
        soft = smoothing > 0 or config.mixup > 0 or config.cutmix > 0
        soft = soft or manifold > 0
        self.schema: Mapping[str, Field] = {
            "images": Field("float32", 4),
            "labels": Field("float32", 2) if soft else Field("int64", 1),
        }
        if manifold > 0:
            self.schema = {
                **self.schema,
                "manifold_partner": Field("int32", 1),
                "manifold_weight": Field("float32", 1),
            }
        self.sample_shape: tuple[int, ...] = augmentation.info.image_shape
        self.row_size = math.prod(augmentation.image_shape)
        self.facts: Mapping[str, Any] = {
            "image_shape": augmentation.image_shape,
            "classes": classes,
        }

    # --- instances --------------------------------------------------------------------------------

    def draw(self, keys: Uint64s, shapes: Int64s, ghost_batch: int) -> Parameters:
        drawn = self.augmentation.draw(keys, shapes[:, :2], ghost_batch)
        if self.manifold > 0:
            numbers = uniforms(keys, mixing.MANIFOLD_NUMBERS, MANIFOLD)
            drawn |= mixing.draw_manifold(numbers, alpha=self.manifold, ghost_batch=ghost_batch)
        return drawn

    def allocate(self, count: int) -> Array:
        return np.empty((count, *self.augmentation.image_shape), np.uint8)

    def render(self, sample: Image, drawn: Parameters, i: int, out: Image) -> None:
        self.augmentation.render(sample, drawn, i, out)

    def pack(self, rows: Array, labels: Int64s, drawn: Parameters) -> dict[str, Array]:
        parameters = self.augmentation.finish_parameters(drawn)
        inside = {name: drawn[name] for name in self.schema if name.startswith("manifold_")}
        return {"images": rows, "labels": labels, **parameters, **inside}

    def finish(self, packed: Mapping[str, Any]) -> dict[str, Any]:
        parameters = dict(packed)
        images, labels = parameters.pop("images"), parameters.pop("labels")
        inside = {name: packed[name] for name in self.schema if name.startswith("manifold_")}
        images = self.augmentation.finish(images, parameters)
        if inside:
            partner, weight = inside["manifold_partner"], inside["manifold_weight"]
            parameters |= {"mix_partner": partner, "mix_label": weight}
        return {"images": images, "labels": self.targets(labels, parameters), **inside}

    def plain(self, sample: Image, out: Image) -> None:
        self.augmentation.plain(sample, out)

    def finish_plain(self, rows: Array, labels: Int64s) -> dict[str, Any]:
        return {"images": self.augmentation.finish(rows, {}), "labels": labels}

    def targets(self, labels_n: Any, parameters: dict[str, Any]) -> Any:
        """What the loss compares the network's answers with.

            (1-ε)·t + ε/classes    where t = λ·onehot(label) + (1-λ)·onehot(label of the partner)

        Args:
            labels_n: int64 [n].
            parameters: of `Augmentation.finish_parameters`.

        Returns:
            The labels as they are where nothing is mixed and ε is 0; else float32 [n, classes].

        Source of smoothing: Szegedy et al. 2016, "Rethinking the Inception Architecture".
        """
        import tensorflow as tf

        mixed = "mix_partner" in parameters
        if not mixed and self.smoothing == 0:
            return labels_n
        classes = self.augmentation.info.classes
        targets = tf.one_hot(labels_n, classes, dtype=tf.float32)
        if mixed:
            targets = mixing.mix_targets(targets, parameters)
        return (1 - self.smoothing) * targets + self.smoothing / classes

    # --- learning ---------------------------------------------------------------------------------

    def loss(self, model: Any, batch: Mapping[str, Any]) -> Loss:
        """Cross entropy; `accuracy` counts the answers that are the (largest) label.

        That of auxiliary heads, the outputs of a network behind its first one, is added with
        their weight (Szegedy et al. 2015, "Going Deeper with Convolutions").
        """
        import tensorflow as tf

        labels = batch["labels"]
        logits, *others = _outputs(model(batch["images"], training=True))
        total = tf.reduce_sum(_cross_entropy(labels, logits))
        for head in others:
            total += self.auxiliary * tf.reduce_sum(_cross_entropy(labels, head))
        classes = labels if labels.dtype.is_integer else tf.argmax(labels, 1)
        correct = tf.reduce_sum(tf.cast(tf.argmax(logits, 1) == classes, total.dtype))
        count = tf.cast(tf.shape(logits)[0], total.dtype)
        return Loss(total, count, {"accuracy": (correct, count)})

    def predict(self, model: Any, batch: Mapping[str, Any]) -> Any:
        return _outputs(model(batch["images"], training=False))[0]

    def scores(self, answers: Any, batch: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """`val_top1`, whether the answer is right, and `val_loss`, the cross entropy.

        Of 100 classes or more also `val_top5`, whether it is among the five largest logits.
        """
        import tensorflow as tf

        hits = tf.argmax(answers, 1) == batch["labels"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["labels"], answers)
        ones = tf.ones_like(losses)
        found = {"val_top1": (hits, ones), "val_loss": (losses, ones)}
        if "val_top5" in self.validation:
            found["val_top5"] = (_among_the_first(5, batch["labels"], answers), ones)
        return found

    def results(self, ratios: Mapping[str, float]) -> dict[str, float]:
        return dict(ratios)


def classification(config: Config, info: ImageInfo) -> Classification:
    """The task of a configuration.

    Raises:
        ConfigError: when the augmentation does not fit the dataset.
    """
    augmentation = Augmentation(config.augment, info, config.data.image_size)
    return Classification(
        augmentation,
        config.optimizer.label_smoothing,
        config.model.auxiliary_weight,
        config.model.manifold_mixup,
    )


def _outputs(answers: Any) -> list[Any]:
    """The logits, then those of auxiliary heads."""
    return answers if isinstance(answers, list) else [answers]


def _among_the_first(count: int, labels_n: Any, logits: Any) -> Any:
    """bool [n]: fewer than `count` logits come before the label's; of equal ones the first does.

    Not tf.math.in_top_k, which counts all equal logits as among the first: a network of zeros
    would always be right.
    """
    import tensorflow as tf

    own = tf.gather(logits, labels_n, axis=1, batch_dims=1)[:, None]
    earlier = tf.range(tf.shape(logits, tf.int64)[1])[None, :] < labels_n[:, None]
    before = (logits > own) | ((logits == own) & earlier)
    ahead = tf.reduce_sum(tf.cast(before, tf.int32), 1)
    return (ahead < count) & tf.reduce_all(tf.math.is_finite(logits), 1)


def _cross_entropy(labels: Any, logits: Any) -> Any:
    import tensorflow as tf

    if labels.dtype.is_integer:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)
