"""Evaluation sharded over the ranks, with exact counts for any number of ranks and images."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ba_dist.comm import Comm
from ba_dist.data.augment import Augmentation
from ba_dist.data.sources import Source, Workers
from ba_dist.errors import CorruptRecord, agreed

_MOST_IMAGES, _MOST_PIXELS = 250, 2**22

# Images, labels, and which of them are samples and no filling.
Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.bool_]]


class Evaluator:
    """Accuracy and loss of a model on the plain images of a source.

    Rank r takes samples r, r + W, r + 2W, …; the last batch is filled up by images that do not
    count. The next batch is read while the network works on one. All ranks go through as many
    batches, one perhaps without a sample, so that they can agree on stopping between them.

    Args:
        model: Keras model, images → logits.
        source: the samples.
        augmentation: makes plain images of them.
        comm: the world.
        workers: threads that read and decode.
        skip: whether corrupt records are left out; otherwise they end the run.
    """

    def __init__(
        self,
        model: Any,
        source: Source,
        augmentation: Augmentation,
        comm: Comm,
        workers: Workers | None = None,
        skip: bool = False,
    ):
        self._model, self._source, self._augmentation = model, source, augmentation
        self._comm, self._workers, self._skip = comm, workers or Workers(1), skip
        self._measure = tf.function(self._forward, reduce_retracing=True, autograph=False)
        height, width, _ = augmentation.image_shape
        self._size = max(1, min(_MOST_IMAGES, _MOST_PIXELS // (height * width)))

    def __call__(
        self, beat: Callable[[], None] = lambda: None, stop: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """Collective over the world.

        Args:
            beat: is called after every batch.
            stop: whether this rank wishes to stop; asked after every batch.

        Returns:
            `val_top1`, correct answers over all samples, and `val_loss`, the mean cross entropy;
            None on all ranks when any wished to stop before the end.

        Raises:
            CorruptRecord: naming file and place, on the rank that found it.
        """
        correct, loss, samples = 0, 0.0, 0
        for left, (images, labels, counted) in self._batches():
            if counted.any():
                hits, losses = self._measure(images, labels)
                correct += int(hits.numpy()[counted].sum())
                loss += float(losses.numpy()[counted].astype(np.float64).sum())
                samples += int(counted.sum())
            beat()
            if left and self._comm.any(stop()):
                return None
        total_correct, total_loss, total = self._comm.sum([correct, loss, samples])
        if not total:
            raise agreed(CorruptRecord("not one validation sample can be read"))
        return {"val_top1": total_correct / total, "val_loss": total_loss / total}

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        """(how many batches are left behind this one, batch), as many on every rank."""
        ids = np.arange(self._comm.rank, len(self._source), self._comm.world_size)
        most = -(-len(self._source) // self._comm.world_size)
        parts = [ids[start : start + self._size] for start in range(0, most, self._size)]
        with ThreadPoolExecutor(1, "evaluation-reader") as ahead:
            coming = ahead.submit(self._read, parts[0])
            for number in range(1, len(parts) + 1):
                batch = coming.result()
                if number < len(parts):
                    coming = ahead.submit(self._read, parts[number])
                yield len(parts) - number, batch

    def _read(self, ids: npt.NDArray[np.int64]) -> Batch:
        images = np.zeros((self._size, *self._augmentation.image_shape), np.uint8)
        labels = np.zeros(self._size, np.int64)
        counted = np.zeros(self._size, np.bool_)

        def read(place: int) -> None:
            sample_id = int(ids[place])
            try:
                image, labels[place] = self._source.decode(self._source.read(sample_id))
            except CorruptRecord as error:
                problem = f"{self._source.where(sample_id)}: {error}"
                if not self._skip:
                    raise CorruptRecord(problem) from None
                print(f"warning: {problem}; evaluated without it", file=sys.stderr)
                return
            self._augmentation.plain(image, images[place])
            counted[place] = True

        self._workers.map(read, list(range(len(ids))))
        return images, labels, counted

    def _forward(self, images: Any, labels: Any) -> tuple[Any, Any]:
        plain = tf.cast(self._augmentation.finish(images, {}), self._model.variables[0].dtype)
        logits = self._model(plain, training=False)
        hits = tf.argmax(logits, 1) == labels
        return hits, tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
