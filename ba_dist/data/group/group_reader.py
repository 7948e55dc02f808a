"""Reads the batches of a group ahead of training, each record once per group (or not)."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ba_dist.comm import Channel, end_job
from ba_dist.data.group.record_exchange import ReadMode, RecordExchange, Share
from ba_dist.data.sources import Labels, Sample, Source, Workers


class Sampler(Protocol):
    """Step → epoch and sample ids of the group; a `rules.order.GroupSampler`."""

    def __call__(self, step: int) -> tuple[int, npt.NDArray[np.int64]]: ...

    def later(self, step: int, steps: int) -> npt.NDArray[np.int64]:
        """The samples that can replace those of a step."""
        ...


@dataclass(frozen=True)
class GroupBatch:
    """The b samples that a group holds in a step, the same on all its lanes.

    The samples may lie in memory that the group shares. They may be read, not written, and only
    until training begins the step (`GroupReader.advance`).

    Args:
        step: counted from the start of training.
        epoch: that the step belongs to.
        sample_ids: int64 [b].
        samples: b decoded samples; for images uint8 [H, W, C].
        labels: int64 [b].
        replaced: corrupt samples that the batch should have held → samples that took their place.
    """

    step: int
    epoch: int
    sample_ids: npt.NDArray[np.int64]
    samples: list[Sample]
    labels: Labels
    replaced: dict[int, int] = field(default_factory=dict)

    def sha256(self) -> str:
        """Digest of the batch before augmentation."""
        digest = hashlib.sha256(self.labels.tobytes())
        for sample in self.samples:
            digest.update(repr(sample.shape).encode())
            digest.update(np.ascontiguousarray(sample).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class _Begun:
    """A step whose share this lane has read, not yet gathered from the others."""

    step: int
    epoch: int
    share: Share


class GroupReader:
    """The batches of steps `first` … `last`-1, read ahead of training in two threads.

    One thread reads and decodes this lane's share of a step. The other gathers the step before it
    from all lanes. There are two because a gather waits for the slowest lane: with one thread this
    lane would do nothing meanwhile, and then be late itself in the next step.

    The threads are at most `prefetch` batches ahead of the steps that training has begun, which
    `advance` counts.

    When training is left early, lanes may be at different steps. They agree on the last step that
    any of them may have begun to gather, and all go on to that step, so that no lane waits for one
    that has gone.

    All lanes of the group make the reader together, and close it together.

    Args:
        source: the samples.
        sampler: step → epoch and sample ids.
        channel: the ranks of the group, on a communicator that nobody else uses meanwhile.
        mode: how the group reads.
        first: the first step.
        last: the step after the last one.
        prefetch: batches that may be read ahead.
        workers: threads that read and decode.
        sharing: ranks on this node, of all groups.
    """

    def __init__(
        self,
        source: Source,
        sampler: Sampler,
        channel: Channel,
        mode: ReadMode,
        *,
        first: int,
        last: int,
        prefetch: int = 2,
        workers: Workers | None = None,
        sharing: int = 1,
    ):
        self._source, self._sampler, self._channel = source, sampler, channel
        # A second communicator for the agreement in `close`. The threads may be inside a gather on
        # the first one at that moment, and MPI matches the collectives of one communicator by
        # their order alone: an agreement on it would be taken for a part of that gather.
        self._closing_channel = channel.duplicate()
        # Why prefetch + 2 slots: when this lane writes the slot of step t, step t-1 may still be
        # gathered, but step t-2 has been, and by all lanes. A lane reads step t-2 only after its
        # training has begun step t-2-prefetch, whose images lie in the slot that is written now.
        # So nobody needs them any more.
        self._records = RecordExchange(
            source,
            channel,
            mode,
            workers=workers or Workers(1),
            slots=prefetch + 2,
            sharing=sharing,
        )
        self._first, self._last = first, last
        self._allowed = first + prefetch
        self._changed = threading.Condition()
        self._begun: _Begun | None = None
        self._all_begun = False
        self._ready: deque[GroupBatch] = deque()
        self._stopped = self._closing = False
        self.seconds = 0.0  # spent on reading and decoding so far
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
        """Says that training begins its next step, so that one more batch may be read ahead."""
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
        """Ends the iteration, also of a thread that waits for a batch; not collective."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads, and gives shared memory back; collective over the group.

        The threads first take part in the gathers that the other lanes wait for. Images that were
        given may not be read any more. Where a lane has failed in a batch that nobody has asked
        for yet, the job ends.
        """
        self.stop()
        with self._changed:
            mine = [self._allowed, self._failure is not None]
        lanes = self._closing_channel.gather_all(np.array(mine, np.int64))
        if lanes[:, 1].any():
            self._end_job()
        with self._changed:
            self._allowed, self._closing = int(lanes[:, 0].max()), True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._ready.clear()
        self._records.close()
        self._closing_channel.free()
        self._source.counters.bytes_exchanged = self._channel.bytes_sent

    def _end_job(self) -> None:
        """Ends the job: a lane that failed ahead will not come to the gathers of the others."""
        if self._failure is not None:
            end_job(f"{self._failure}", 1)
        self._closing_channel.barrier()  # until that lane has ended the job

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # handed to the thread that asks for the next batch
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _begin_all(self) -> None:
        """The first thread: reads this lane's share of each step."""
        for step in range(self._first, self._last):
            with self._changed:
                self._changed.wait_for(partial(self._may_begin_or_is_over, step))
                if self._over(step):
                    break
            epoch, ids = self._sampler(step)
            since = time.monotonic()
            begun = _Begun(step, epoch, self._records.begin(ids))
            self.seconds += time.monotonic() - since
            with self._changed:
                self._begun = begun
                self._changed.notify_all()
        with self._changed:
            self._all_begun = True
            self._changed.notify_all()

    def _may_begin_or_is_over(self, step: int) -> bool:
        """Whether training allows this step and the one before it is at least being gathered."""
        return (step < self._allowed and self._begun is None) or self._over(step)

    def _over(self, step: int) -> bool:
        """Whether this step will not be read: the end of training, or a failure."""
        return bool(self._failure) or (self._closing and step >= self._allowed)

    def _finish_all(self) -> None:
        """The second thread: gathers each step that the first one has begun."""
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
        """Gathers a step, and puts other samples in the place of corrupt ones."""
        wanted = begun.share.ids
        ids = wanted.copy()
        samples, labels = self._records.finish(begun.share)
        later = 0
        while missing := [i for i, sample in enumerate(samples) if sample is None]:
            # The same rule on every lane, and in every layout.
            later += 1
            ids[missing] = self._sampler.later(begun.step, later)[missing]
            found = self._records.replace(begun.share, ids[missing])
            for i, sample, label in zip(missing, *found, strict=True):
                samples[i], labels[i] = sample, label
        replaced = {int(a): int(b) for a, b in zip(wanted, ids, strict=True) if a != b}
        self._source.counters.add(records_skipped=len(replaced) * (self._channel.rank == 0))
        whole = [sample for sample in samples if sample is not None]
        return GroupBatch(begun.step, begun.epoch, ids, whole, np.array(labels, np.int64), replaced)
