"""Evaluation sharded over the ranks, with exact counts for any number of ranks and samples."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ba_dist.comm import Comm
from ba_dist.data.sources import Source, Workers
from ba_dist.errors import CorruptRecord, agreed
from ba_dist.tasks import Task

_MOST_ROWS, _MOST_ELEMENTS = 250, 3 * 2**22

# Rows, labels, and which of them are samples and no filling.
Rows = tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.bool_]]


class Answers:
    """Label and answer of every sample, in no particular order."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.int32]] = []

    def add(self, labels: npt.NDArray[np.int64], logits: npt.NDArray[Any]) -> None:
        """Some samples of this rank: labels [n] and logits [n, classes]."""
        self._parts.append(np.stack([labels, logits.argmax(1)], 1).astype(np.int32))

    def gather(self, comm: Comm) -> npt.NDArray[np.int32]:
        """Those of all ranks, int32 [N, 2], on every rank; collective over the world."""
        mine = np.concatenate([np.empty((0, 2), np.int32), *self._parts])
        sizes = comm.world.gather_all(np.array(mine.nbytes, np.int64))
        whole = comm.world.concatenate(mine.reshape(-1).view(np.uint8), sizes)
        return whole.view(np.int32).reshape(-1, 2)


class Evaluator:
    """The metrics of a network on the samples of a source, without augmentation.

    Rank r takes samples r, r + W, r + 2W, …; the last batch is filled up by rows that do not
    count. The next batch is read while the network works on one. All ranks go through as many
    batches, one perhaps without a sample, so that they can agree on stopping between them.

    Args:
        task: makes rows of samples, predicts and scores.
        model: Keras model.
        source: the samples.
        comm: the world.
        workers: threads that read and decode.
        skip: whether corrupt records are left out; otherwise they end the run.
    """

    def __init__(
        self,
        task: Task,
        model: Any,
        source: Source,
        *,
        comm: Comm,
        workers: Workers | None = None,
        skip: bool = False,
    ):
        self._task, self._model, self._source = task, model, source
        self._comm, self._workers, self._skip = comm, workers or Workers(1), skip
        self._measure = tf.function(self._forward, reduce_retracing=True, autograph=False)
        self._size = max(1, min(_MOST_ROWS, _MOST_ELEMENTS // task.row_size))

    def __call__(
        self,
        beat: Callable[[], None] = lambda: None,
        stop: Callable[[], bool] = lambda: False,
        answers: Answers | None = None,
    ) -> dict[str, float] | None:
        """Collective over the world.

        Args:
            beat: is called after every batch.
            stop: whether this rank wishes to stop; asked after every batch.
            answers: gets the answer to every sample of this rank.

        Returns:
            The metrics of the task over all samples, for classification `val_top1`, the share of
            right answers, and `val_loss`, the mean cross entropy; None on all ranks when any
            wished to stop before the end.

        Raises:
            CorruptRecord: naming file and place, on the rank that found it.
        """
        sums: dict[str, npt.NDArray[np.float64]] = {}
        samples = 0
        for left, (rows, labels, counted) in self._rank_batches():
            # Also of a batch that counts for nothing: every rank must know all names.
            scores, given = self._measure(rows, labels)
            if answers is not None:
                answers.add(labels[counted], given.numpy()[counted])
            for name, pair in scores.items():
                part = [float(row.numpy()[counted].astype(np.float64).sum()) for row in pair]
                sums[name] = sums.get(name, np.zeros(2)) + part
            samples += int(counted.sum())
            beat()
            if left and self._comm.any(stop()):
                return None
        total, *numbers = self._comm.sum([samples, *np.concatenate([*sums.values()])])
        if not total:
            raise agreed(CorruptRecord("not one validation sample can be read"))
        ratios = zip(sums, numbers[::2], numbers[1::2], strict=True)
        return self._task.results({name: above / below for name, above, below in ratios})

    def _rank_batches(self) -> Iterator[tuple[int, Rows]]:
        return rank_batches(
            self._task,
            self._source,
            comm=self._comm,
            size=self._size,
            workers=self._workers,
            skip=self._skip,
        )

    def _forward(self, rows: Any, labels: Any) -> tuple[dict[str, tuple[Any, Any]], Any]:
        """(numerators and denominators of the metrics, answers of the network) of a batch."""
        answers, batch = answer(self._task, self._model, rows, labels)
        return self._task.scores(answers, batch), answers


def answer(task: Task, model: Any, rows: Any, labels: Any) -> tuple[Any, dict[str, Any]]:
    """What a network answers to rows that `plain` wrote, and its inputs, in its own precision."""
    dtype = model.variables[0].dtype
    batch = task.finish_plain(rows, labels)
    batch = {n: tf.cast(t, dtype) if t.dtype.is_floating else t for n, t in batch.items()}
    return task.predict(model, batch), batch


def rank_batches(
    task: Task, source: Source, *, comm: Comm, size: int, workers: Workers, skip: bool
) -> Iterator[tuple[int, Rows]]:
    """This rank's samples r, r + W, r + 2W, … in batches; the next is read while one is used.

    Args:
        task: makes rows of samples.
        source: the samples.
        comm: the world.
        size: of a batch.
        workers: threads that read and decode.
        skip: whether corrupt records are left out; otherwise they are an error.

    Returns:
        (how many batches are left behind this one, batch), as many on every rank.

    Raises:
        CorruptRecord: naming file and place, on the rank that found it.
    """

    def read(part: npt.NDArray[np.int64]) -> Rows:
        return _read(task, source, part, size=size, workers=workers, skip=skip)

    ids = np.arange(comm.rank, len(source), comm.world_size)
    most = -(-len(source) // comm.world_size)
    parts = [ids[start : start + size] for start in range(0, most, size)]
    with ThreadPoolExecutor(1, "evaluation-reader") as ahead:
        coming = ahead.submit(read, parts[0])
        for number in range(1, len(parts) + 1):
            batch = coming.result()
            if number < len(parts):
                coming = ahead.submit(read, parts[number])
            yield len(parts) - number, batch


def _read(
    task: Task,
    source: Source,
    ids: npt.NDArray[np.int64],
    *,
    size: int,
    workers: Workers,
    skip: bool,
) -> Rows:
    rows = task.allocate(size)
    rows[...] = 0
    labels = np.zeros(size, np.int64)
    counted = np.zeros(size, np.bool_)

    def read(place: int) -> None:
        sample_id = int(ids[place])
        try:
            sample, labels[place] = source.decode(source.read(sample_id))
        except CorruptRecord as error:
            problem = f"{source.where(sample_id)}: {error}"
            if not skip:
                raise CorruptRecord(problem) from None
            print(f"warning: {problem}; evaluated without it", file=sys.stderr)
            return
        task.plain(sample, rows[place])
        counted[place] = True

    workers.map(read, list(range(len(ids))))
    return rows, labels, counted
