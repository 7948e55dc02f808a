"""Evaluation sharded over the ranks, with exact counts for any number of ranks and samples.

Of the plain samples, or of the mean answer over augmented copies of each (TTA).
"""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ba_dist.comm import Comm
from ba_dist.data.batch import Array, InstanceMaker, Int64s, make
from ba_dist.data.sources import Source, Workers
from ba_dist.errors import CorruptRecord, agreed
from ba_dist.rules.keys import evaluation_keys
from ba_dist.rules.mean_answer import Average, MeanAnswer
from ba_dist.tasks import Task

_MOST_ROWS, _MOST_ELEMENTS = 250, 3 * 2**22

# Sample ids; rows, labels, and which of them are samples and no filling.
Rows = tuple[npt.NDArray[np.int64], npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.bool_]]
Floats = npt.NDArray[np.float64]
T = TypeVar("T")


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


class Scores:
    """Numerator and denominator of each metric of classification, for every sample of this rank.

    They are computed in float64 and rounded to float32: the last bits of a cross entropy depend on
    the position in the batch, and so on the number of ranks.

    Args:
        task: scores answers.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._ids: list[Int64s] = []
        self._parts: dict[str, list[Floats]] = {}

    def add(self, ids: Int64s, labels: Int64s, logits: Array) -> None:
        """Some samples of this rank: ids and labels [n], and logits [n, classes]."""
        self._ids.append(ids)
        answers = tf.constant(logits.astype(np.float64))
        for name, pair in self._task.scores(answers, {"labels": tf.constant(labels)}).items():
            found = np.stack([part.numpy().astype(np.float32) for part in pair], 1)
            self._parts.setdefault(name, []).append(found.astype(np.float64))

    @property
    def names(self) -> list[str]:
        """Of the metrics, in order."""
        return list(self._parts)

    def gather(self, comm: Comm, names: list[str]) -> tuple[Int64s, dict[str, Floats]]:
        """Those of all ranks in order of the sample ids: the same on any number of ranks.

        Collective over the world.

        Args:
            comm: the world.
            names: of the metrics; a rank without a sample knows none.

        Returns:
            ids int64 [N], and metric → float64 [N, 2].
        """
        empty = np.empty((0, 1 + 2 * len(names)))
        parts = (np.concatenate(self._parts.get(name, [empty[:, :2]])) for name in names)
        ids = np.concatenate([np.empty(0, np.int64), *self._ids])
        mine = np.ascontiguousarray(np.concatenate([ids[:, None], *parts], 1))
        sizes = comm.world.gather_all(np.array(mine.nbytes, np.int64))
        whole = comm.world.concatenate(mine.reshape(-1).view(np.uint8), sizes)
        rows = whole.view(np.float64).reshape(-1, empty.shape[1])
        table = rows[np.argsort(rows[:, 0])]
        found = {name: table[:, 1 + 2 * i : 3 + 2 * i] for i, name in enumerate(names)}
        return table[:, 0].astype(np.int64), found


@dataclass(frozen=True)
class Augmented:
    """What is answered in place of the plain samples.

    Args:
        maker: makes the copies, and mixes none.
        seed: of the run.
        copies: n, of each sample.
        average: what is averaged over them.
    """

    maker: InstanceMaker
    seed: int
    copies: int
    average: Average = "probabilities"


class Evaluator:
    """The metrics of a network on the samples of a source.

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
        self._predict = tf.function(self._forward_copies, reduce_retracing=True, autograph=False)
        self._size = max(1, min(_MOST_ROWS, _MOST_ELEMENTS // task.row_size))

    def __call__(
        self,
        beat: Callable[[], None] = lambda: None,
        stop: Callable[[], bool] = lambda: False,
        answers: Answers | None = None,
        kept: Scores | None = None,
    ) -> dict[str, float] | None:
        """Of the plain samples; collective over the world.

        Args:
            beat: is called after every batch.
            stop: whether this rank wishes to stop; asked after every batch.
            answers: gets the answer to every sample of this rank.
            kept: gets the scores of every sample of this rank.

        Returns:
            The metrics of the task over all samples, for classification `val_top1`, the share of
            right answers, and `val_loss`, the mean cross entropy; None on all ranks when any
            wished to stop before the end.

        Raises:
            CorruptRecord: naming file and place, on the rank that found it.
        """
        sums: dict[str, npt.NDArray[np.float64]] = {}
        samples = 0
        for left, (ids, rows, labels, counted) in self._rank_batches():
            # Also of a batch that counts for nothing: every rank must know all names.
            scores, given = self._measure(rows, labels)
            if answers is not None:
                answers.add(labels[counted], given.numpy()[counted])
            if kept is not None:
                kept.add(ids[counted[: len(ids)]], labels[counted], given.numpy()[counted])
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

    def augmented(
        self, augmented: Augmented, done: Callable[[int], object] = lambda copies: None
    ) -> Scores:
        """The scores of the mean answers to augmented copies of this rank's samples.

        Pixels follow from (seed, sample id, copy) alone. Every batch that the network sees has as
        many rows as in an evaluation of plain samples, one copy of each sample.

        Args:
            augmented: which copies, and what is averaged.
            done: is called with the number of copies that were answered since the last time.

        Raises:
            CorruptRecord: naming file and place, on the rank that found it.
        """
        found = Scores(self._task)
        for ids, copy, inputs in _ahead(self._copies(augmented)):
            if copy == 0:
                mean = MeanAnswer(augmented.average)
            answers = self._predict({name: self._filled(t) for name, t in inputs.items()})
            mean.add(answers.numpy()[: len(ids)])
            done(len(ids))
            if copy == augmented.copies - 1:
                found.add(ids, inputs["labels"].numpy(), mean.result())
        return found

    def _copies(self, augmented: Augmented) -> Iterator[tuple[Int64s, int, dict[str, Any]]]:
        """(sample ids, copy, inputs of the network) of one copy after the other of each batch."""
        for part in _parts(len(self._source), self._comm, self._size):
            decoded: dict[int, Array] = {}
            labels, counted = _decode(
                self._source,
                part,
                decoded.__setitem__,
                size=len(part),
                workers=self._workers,
                skip=self._skip,
            )
            samples, ids = [decoded[place] for place in sorted(decoded)], part[counted]
            for copy in range(augmented.copies if samples else 0):
                yield (
                    ids,
                    copy,
                    make(
                        augmented.maker,
                        samples,
                        labels[counted],
                        evaluation_keys(augmented.seed, ids, copy),
                        ghost_batch=1,
                        workers=self._workers,
                    ),
                )

    def _filled(self, rows: Any) -> Any:
        """As many rows as a batch has; those that are missing are zeros."""
        missing = [[0, self._size - len(rows)]] + [[0, 0]] * (rows.shape.rank - 1)
        return tf.pad(rows, missing)

    def _forward_copies(self, batch: dict[str, Any]) -> Any:
        """Logits of at least float32: a mean of numbers of bfloat16 would lose what it gains."""
        answers, _ = predict(self._task, self._model, batch)
        return answers if answers.dtype.size >= 4 else tf.cast(answers, tf.float32)

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
    return predict(task, model, task.finish_plain(rows, labels))


def predict(task: Task, model: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What a network answers to inputs, and these in its own precision."""
    dtype = model.variables[0].dtype
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

    parts = _parts(len(source), comm, size)
    return _ahead((len(parts) - i, read(part)) for i, part in enumerate(parts, 1))


def _parts(samples: int, comm: Comm, size: int) -> list[Int64s]:
    """The sample ids of this rank's batches, as many batches on every rank."""
    ids = np.arange(comm.rank, samples, comm.world_size)
    most = -(-samples // comm.world_size)
    return [ids[start : start + size] for start in range(0, most, size)]


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same; each is made in a thread, while the one before is used."""
    with ThreadPoolExecutor(1, "evaluation-reader") as ahead:
        coming = ahead.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = ahead.submit(next, items, None)
            yield item


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

    def write(place: int, sample: Array) -> None:
        task.plain(sample, rows[place])

    return ids, rows, *_decode(source, ids, write, size=size, workers=workers, skip=skip)


def _decode(
    source: Source,
    ids: Int64s,
    use: Callable[[int, Array], None],
    *,
    size: int,
    workers: Workers,
    skip: bool,
) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """Calls `use` with place and sample of each; their labels, and which of them count, [size]."""
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
        use(place, sample)
        counted[place] = True

    workers.map(read, list(range(len(ids))))
    return labels, counted
