"""Reads the batches of a group ahead of training, each record once per group (or not).

Three modes, the same batches bit for bit:

    replicate     every lane reads and decodes all b records: what users have without groups
    broadcast     lane 0 reads, the group gets the encoded records, every lane decodes: the paper
    cooperative   lane l reads and decodes the l-th part, the group gathers the decoded images
"""

import hashlib
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ba_dist.comm import Bytes, Channel
from ba_dist.data.exchange import Exchange
from ba_dist.data.sources import Image, Images, Labels, Place, Source, Workers, new_memory
from ba_dist.errors import CorruptRecord
from ba_dist.sampling import GroupSampler

_NONE = np.zeros(0, np.uint8)


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
class ReadMode:
    """How a group reads.

    Args:
        io: replicate, broadcast or cooperative.
        exchange: encoded, decoded or auto.
        skip: whether corrupt records are replaced; otherwise they end the run.
    """

    io: str = "cooperative"
    exchange: str = "auto"
    skip: bool = False

    @property
    def decoded(self) -> bool:
        """Whether images are exchanged, rather than records."""
        return self.exchange == "decoded" or (self.exchange, self.io) == ("auto", "cooperative")

    def counts(self, total: int, lanes: int) -> list[int]:
        """How many of so many records each lane reads for the group."""
        if self.io == "broadcast":
            return [total] + [0] * (lanes - 1)
        return [total * (lane + 1) // lanes - total * lane // lanes for lane in range(lanes)]


@dataclass
class _Piece:
    """A record or an image on its way through the group.

    `facts` are height, width, channels and label, None if it is corrupt; the lane that finds
    it so knows the problem.
    """

    memory: Bytes
    facts: tuple[int, int, int, int] | None
    problem: str = ""


class RecordExchange:
    """Turns sample ids into images on every lane of a group.

    Args:
        source: the samples.
        channel: the ranks of the group.
        mode: who reads, and what is exchanged.
        workers: threads that read and decode.
        exchange: carries pieces from lane to lane.
    """

    def __init__(
        self, source: Source, channel: Channel, mode: ReadMode, workers: Workers, exchange: Exchange
    ):
        self._source, self._channel, self._mode = source, channel, mode
        self._workers, self._exchange = workers, exchange

    def __call__(self, ids: npt.NDArray[np.int64]) -> tuple[list[Image | None], list[int]]:
        """The images and labels of these samples; collective over the group.

        Returns:
            For each sample its image (None where the record is corrupt) and its label.

        Raises:
            CorruptRecord: naming file and place, on the lane that found it, when corrupt records
                are not skipped; the other lanes wait for the end of the job.
        """
        if self._channel.size == 1 or self._mode.io == "replicate":
            pieces = self._workers.map(self._image, [(int(i), new_memory) for i in ids])
            finders = self._agree(pieces)
        else:
            pieces, finders = self._share([int(i) for i in ids])
        self._settle(pieces, finders)
        images = [p.memory.reshape(p.facts[:3]) if p.facts else None for p in pieces]
        return images, [p.facts[3] if p.facts else 0 for p in pieces]

    def _share(self, ids: list[int]) -> tuple[list[_Piece], Labels]:
        """What the mode says, and for each piece the lane that found it corrupt if it is."""
        counts = self._mode.counts(len(ids), self._channel.size)
        first = sum(counts[: self._channel.rank])
        mine = ids[first : first + counts[self._channel.rank]]
        place = self._exchange.place
        if self._mode.decoded:
            parts = self._workers.map(self._image, [(i, place) for i in mine])
        else:
            parts = self._workers.map(self._record, mine)
        rows = [(*(p.facts or (0, 0, 0, 0)), p.facts is None) for p in parts]
        facts = np.array(rows, np.int64).reshape(len(parts), 5)
        memories, all_facts = self._exchange.gather([p.memory for p in parts], facts, counts)
        pieces = [
            _Piece(memory, None if corrupt else (height, width, channels, label))
            for memory, (height, width, channels, label, corrupt) in zip(
                memories, all_facts.tolist(), strict=True
            )
        ]
        for piece, part in zip(pieces[first:], parts, strict=False):
            piece.problem = part.problem
        if self._mode.decoded:
            return pieces, np.repeat(np.arange(len(counts)), counts)
        pieces = self._workers.map(self._decode, list(zip(ids, pieces, strict=True)))
        return pieces, self._agree(pieces)

    def _agree(self, pieces: list[_Piece]) -> Labels:
        """What is corrupt on one lane becomes so on all; the first lane that found each, or -1."""
        corrupt = np.array([piece.facts is None for piece in pieces])
        on_lanes = self._channel.gather_all(corrupt)
        for piece in (pieces[i] for i in np.flatnonzero(on_lanes.any(axis=0))):
            piece.facts = None
        # A lane that could not read knows the reason; one that got nothing to decode does not.
        told = self._channel.gather_all(np.array([bool(piece.problem) for piece in pieces]))
        return np.where(told.any(axis=0), told.argmax(axis=0), -1)

    def _settle(self, pieces: list[_Piece], finders: Labels) -> None:
        """Warns of corrupt records, or stops: once in the group, by the lane that knows why."""
        corrupt = [i for i, piece in enumerate(pieces) if piece.facts is None]
        mine = [pieces[i].problem for i in corrupt if finders[i] == self._channel.rank]
        if self._mode.skip:
            for problem in mine:
                print(f"warning: {problem}; another sample takes its place", file=sys.stderr)
        elif mine:
            raise CorruptRecord(
                f"{mine[0]}. `ba-dist data verify` lists all such records; --on-corrupt skip"
                " trains without them"
            )
        elif corrupt:
            self._channel.barrier()

    def _image(self, item: tuple[int, Place]) -> _Piece:
        sample_id, place = item
        try:
            record = self._source.read(sample_id)
            image, label = self._source.decode(record, place)
        except CorruptRecord as error:
            return _Piece(_NONE, None, f"{self._source.where(sample_id)}: {error}")
        height, width, channels = image.shape
        return _Piece(image.reshape(-1), (height, width, channels, label))

    def _record(self, sample_id: int) -> _Piece:
        try:
            record = np.frombuffer(self._source.read(sample_id), np.uint8)
        except CorruptRecord as error:
            return _Piece(_NONE, None, f"{self._source.where(sample_id)}: {error}")
        memory = self._exchange.place(record.nbytes)
        memory[:] = record
        return _Piece(memory, (0, 0, 0, 0))

    def _decode(self, item: tuple[int, _Piece]) -> _Piece:
        sample_id, piece = item
        if piece.facts is None:
            return piece
        try:
            image, label = self._source.decode(piece.memory.tobytes())
        except CorruptRecord as error:
            return _Piece(_NONE, None, f"{self._source.where(sample_id)}: {error}")
        height, width, channels = image.shape
        return _Piece(image.reshape(-1), (height, width, channels, label))


class GroupReader:
    """The batches of steps `first` … `last`-1, read ahead in a thread of its own.

    The thread may be at most `prefetch` batches ahead of the steps that training has begun, which
    `advance` counts. Training begins the same steps on every rank, so all lanes make the same
    exchanges even when a run is stopped early: nobody waits for a lane that has gone.

    Args:
        source: the samples.
        sampler: step → epoch and sample ids.
        channel: the ranks of the group, on a communicator of the reader's own.
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
        # Before a lane writes the slot of step t it has exchanged step t-1, which no lane does
        # before its training has begun step t-1-prefetch: that slot's images are used up.
        self._exchange = Exchange(channel, prefetch + 1, sharing)
        self._fetch = RecordExchange(source, channel, mode, workers or Workers(1), self._exchange)
        self._first, self._last = first, last
        self._allowed = first + prefetch
        self._changed = threading.Condition()
        self._ready: deque[GroupBatch] = deque()
        self._closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="group-reader", daemon=True)
        self._thread.start()

    def advance(self) -> None:
        """Training begins its next step: one more batch may be read ahead."""
        with self._changed:
            self._allowed += 1
            self._changed.notify_all()

    def __iter__(self) -> Iterator[GroupBatch]:
        """The batches in order of steps; raises what the thread failed of."""
        for _ in range(self._first, self._last):
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._failure or self._closing)
                if self._failure:
                    raise self._failure
                if not self._ready:
                    return
                batch = self._ready.popleft()
            yield batch

    def close(self) -> None:
        """Ends the thread after the exchanges that the other lanes count on; collective.

        Images that were read may not be looked at any more.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._ready.clear()
        self._exchange.close()
        self._source.counters.bytes_exchanged = self._channel.bytes_sent

    def _run(self) -> None:
        try:
            for step in range(self._first, self._last):
                with self._changed:
                    while step >= self._allowed:
                        if self._closing:
                            return
                        self._changed.wait()
                batch = self._read(step)
                with self._changed:
                    self._ready.append(batch)
                    self._changed.notify_all()
        except BaseException as error:  # handed to the thread that asks for the next batch
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _read(self, step: int) -> GroupBatch:
        epoch, wanted = self._sampler(step)
        self._exchange.begin()
        ids = wanted.copy()
        images, labels = self._fetch(ids)
        later = 0
        while missing := [i for i, image in enumerate(images) if image is None]:
            # The same rule on every lane, and in every layout.
            later += 1
            ids[missing] = self._sampler.later(step, later)[missing]
            for i, image, label in zip(missing, *self._fetch(ids[missing]), strict=True):
                images[i], labels[i] = image, label
        replaced = {int(a): int(b) for a, b in zip(wanted, ids, strict=True) if a != b}
        self._source.counters.add(records_skipped=len(replaced) * (self._channel.rank == 0))
        whole = [image for image in images if image is not None]
        return GroupBatch(step, epoch, ids, whole, np.array(labels, np.int64), replaced)
