"""Reads the batches of a group ahead of training, each record once per group (or not)."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from ba_dist.comm import Channel, end_job
from ba_dist.data.group.exchange import Exchange, Turn
from ba_dist.data.group.record_exchange import Piece, ReadMode, RecordExchange
from ba_dist.data.sources import Images, Labels, Source, Workers
from ba_dist.rules.order import GroupSampler


@dataclass(frozen=True)
class GroupBatch:
    """The b samples that a group holds in a step, the same on all its lanes.

    The images may lie in memory that the group shares: they are only to be read, until training
    has begun the step (`GroupReader.advance`).

    Args:
        step: since the start of training.
        epoch: it belongs to.
        sample_ids: int64 [b].
        images: b images uint8 [H, W, C].
        labels: int64 [b].
        replaced: corrupt samples that the batch should have held → samples that took their place.
    """

    step: int
    epoch: int
    sample_ids: npt.NDArray[np.int64]
    images: Images
    labels: Labels
    replaced: dict[int, int] = field(default_factory=dict)

    def sha256(self) -> str:
        """Digest of the batch before augmentation."""
        digest = hashlib.sha256(self.labels.tobytes())
        for image in self.images:
            digest.update(repr(image.shape).encode())
            digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class _Begun:
    """A step whose samples this lane has read its part of."""

    step: int
    epoch: int
    wanted: npt.NDArray[np.int64]
    turn: Turn
    parts: list[Piece]


class GroupReader:
    """The batches of steps `first` … `last`-1, read ahead in two threads of its own.

    One reads and decodes this lane's part of a step, while the other gathers the step before from
    the lanes that may be later. They may be at most `prefetch` batches ahead of the steps that
    training has begun, which `advance` counts. When it is left early, the lanes agree on the last
    step that any of them may have begun to exchange, and all go on to that one: nobody waits for a
    lane that has gone.

    It is made by all lanes of the group together, and closed by all.

    Args:
        source: the samples.
        sampler: step → epoch and sample ids.
        channel: the ranks of the group, on a communicator that nobody else uses meanwhile.
        mode: how the group reads.
        first: step to begin with.
        last: step to end before.
        prefetch: batches ahead.
        workers: threads that read and decode.
        sharing: ranks on this node, of all groups.
    """

    def __init__(
        self,
        source: Source,
        sampler: GroupSampler,
        channel: Channel,
        mode: ReadMode,
        first: int,
        last: int,
        prefetch: int = 2,
        workers: Workers | None = None,
        sharing: int = 1,
    ):
        self._source, self._sampler, self._channel = source, sampler, channel
        # The threads may be in an exchange on the other one when the lanes agree on the end.
        self._farewell = channel.duplicate()
        # Before a lane writes the slot of step t it has gathered step t-2, which no lane does
        # before its training has begun step t-2-prefetch: that slot's images are used up.
        self._exchange = Exchange(channel, prefetch + 2, sharing)
        self._fetch = RecordExchange(source, channel, mode, workers or Workers(1), self._exchange)
        self._first, self._last = first, last
        self._allowed = first + prefetch
        self._changed = threading.Condition()
        self._begun: _Begun | None = None
        self._all_begun = False
        self._ready: deque[GroupBatch] = deque()
        self._stopped = self._closing = False
        self.seconds = 0.0  # spent on this lane's parts so far
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
            for name, work in (
                ("group-reader", self._begin_all),
                ("group-gather", self._finish_all),
            )
        ]
        for thread in self._threads:
            thread.start()

    def advance(self) -> None:
        """Training begins its next step: one more batch may be read ahead."""
        with self._changed:
            self._allowed += 1
            self._changed.notify_all()

    def __iter__(self) -> Iterator[GroupBatch]:
        """The batches in order of steps; raises the error that ended a thread."""
        for _ in range(self._first, self._last):
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._failure or self._stopped)
                if self._failure:
                    raise self._failure
                if self._stopped:
                    return
                batch = self._ready.popleft()
            yield batch

    def stop(self) -> None:
        """Gives no more batches: who waits for one comes back. Not collective."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads after the exchanges that the other lanes count on; collective.

        Where a lane has failed in a batch that nobody has asked for yet, the job ends.

        Images that were read may not be looked at any more.
        """
        self.stop()
        with self._changed:
            mine = [self._allowed, self._failure is not None]
        lanes = self._farewell.gather_all(np.array(mine, np.int64))
        if lanes[:, 1].any():
            self._end_job()
        with self._changed:
            self._allowed, self._closing = int(lanes[:, 0].max()), True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._ready.clear()
        self._exchange.close()
        self._farewell.free()
        self._source.counters.bytes_exchanged = self._channel.bytes_sent

    def _end_job(self) -> None:
        """A lane has failed in what was read ahead: it will not come to the others' exchanges."""
        if self._failure is not None:
            end_job(f"{self._failure}", 1)
        self._farewell.barrier()  # until that lane has ended the job

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # handed to the thread that asks for the next batch
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _begin_all(self) -> None:
        for step in range(self._first, self._last):
            with self._changed:
                self._changed.wait_for(partial(self._may_begin_or_is_over, step))
                if self._over(step):
                    break
            epoch, wanted = self._sampler(step)
            turn = self._exchange.begin()
            since = time.monotonic()
            begun = _Begun(step, epoch, wanted, turn, self._fetch.begin(turn, wanted))
            self.seconds += time.monotonic() - since
            with self._changed:
                self._begun = begun
                self._changed.notify_all()
        with self._changed:
            self._all_begun = True
            self._changed.notify_all()

    def _may_begin_or_is_over(self, step: int) -> bool:
        """Within what training allows, and when the step before is at least being gathered."""
        return (step < self._allowed and self._begun is None) or self._over(step)

    def _over(self, step: int) -> bool:
        """Whether this step will not be read: the end of training, or a failure."""
        return bool(self._failure) or (self._closing and step >= self._allowed)

    def _finish_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._begun or self._all_begun or self._failure)
                if self._begun is None or self._failure:
                    return
                begun, self._begun = self._begun, None
                self._changed.notify_all()
            batch = self._finish(begun)
            with self._changed:
                self._ready.append(batch)
                self._changed.notify_all()

    def _finish(self, begun: _Begun) -> GroupBatch:
        wanted, turn = begun.wanted, begun.turn
        ids = wanted.copy()
        images, labels = self._fetch.finish(turn, ids, begun.parts)
        later = 0
        while missing := [i for i, image in enumerate(images) if image is None]:
            # The same rule on every lane, and in every layout.
            later += 1
            ids[missing] = self._sampler.later(begun.step, later)[missing]
            parts = self._fetch.begin(turn, ids[missing])
            found = self._fetch.finish(turn, ids[missing], parts)
            for i, image, label in zip(missing, *found, strict=True):
                images[i], labels[i] = image, label
        replaced = {int(a): int(b) for a, b in zip(wanted, ids, strict=True) if a != b}
        self._source.counters.add(records_skipped=len(replaced) * (self._channel.rank == 0))
        whole = [image for image in images if image is not None]
        return GroupBatch(begun.step, begun.epoch, ids, whole, np.array(labels, np.int64), replaced)
