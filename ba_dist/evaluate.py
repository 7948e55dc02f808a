"""Evaluation sharded over the ranks, with exact counts for any number of ranks and images."""

from typing import Any

import numpy as np
import tensorflow as tf

from ba_dist.comm import Comm
from ba_dist.data.augment import Augmentation
from ba_dist.data.sources import Source

_BATCH = 250


class Evaluator:
    """Accuracy and loss of a model on the plain images of a source.

    Rank r takes samples r, r + W, r + 2W, …; the last batch is filled up by images that do not
    count.

    Args:
        model: Keras model, images → logits.
        source: the samples.
        augmentation: normalises them.
        comm: the world.
    """

    def __init__(self, model: Any, source: Source, augmentation: Augmentation, comm: Comm):
        self._model, self._source, self._augmentation = model, source, augmentation
        self._comm = comm
        self._measure = tf.function(self._forward, reduce_retracing=True)

    def __call__(self) -> dict[str, float]:
        """Collective over the world.

        Returns:
            `val_top1`, correct answers over all samples, and `val_loss`, the mean cross entropy.
        """
        ids = np.arange(self._comm.rank, len(self._source), self._comm.world_size)
        correct, loss = 0, 0.0
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            images, labels = self._source.decode(self._source.read(batch))
            counted = np.arange(_BATCH) < len(batch)
            filled = np.resize(np.stack(images), (_BATCH, *images[0].shape))
            hits, losses = self._measure(filled, np.resize(labels, _BATCH))
            correct += int(hits.numpy()[counted].sum())
            loss += float(losses.numpy()[counted].astype(np.float64).sum())
        total_correct, total_loss = self._comm.sum([correct, loss])
        return {
            "val_top1": total_correct / len(self._source),
            "val_loss": total_loss / len(self._source),
        }

    def _forward(self, images: Any, labels: Any) -> tuple[Any, Any]:
        plain = tf.cast(self._augmentation.apply(images, {}), self._model.variables[0].dtype)
        logits = self._model(plain, training=False)
        hits = tf.argmax(logits, 1) == labels
        return hits, tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
