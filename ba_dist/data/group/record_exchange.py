"""From sample ids to images on every lane of a group, each record read once per group (or not).

Three modes, the same images bit for bit:

    replicate     every lane reads and decodes all b records: what users have without groups
    broadcast     lane 0 reads, the group gets the encoded records, every lane decodes: the paper
    cooperative   lane l reads and decodes the l-th part, the group gathers the decoded images
"""

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ba_dist.comm import Channel
from ba_dist.comm.shared_memory import Bytes
from ba_dist.data.group.exchange import Exchange, Turn
from ba_dist.data.sources import Image, Labels, Place, Source, Workers, new_memory
from ba_dist.errors import CorruptRecord

_NONE = np.zeros(0, np.uint8)


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
class Piece:
    """A record or an image on its way through the group.

    `facts` are height, width, channels and label, None if it is corrupt; the lane that finds
    it so knows the problem.
    """

    memory: Bytes
    facts: tuple[int, int, int, int] | None
    problem: str = ""


class RecordExchange:
    """Turns sample ids into images on every lane of a group: `begin`, then `finish`.

    The next samples may be begun, in a turn of their own, before the last are finished.

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

    def begin(self, turn: Turn, ids: npt.NDArray[np.int64]) -> list[Piece]:
        """Reads this lane's part of these samples, and decodes it where the mode says so."""
        if self._alone:
            return self._workers.map(self._image, [(int(i), new_memory) for i in ids])
        part = [int(i) for i in ids[self._part(len(ids))]]
        if self._mode.decoded:
            return self._workers.map(self._image, [(i, turn.place) for i in part])
        return self._workers.map(self._record, [(i, turn.place) for i in part])

    def finish(
        self, turn: Turn, ids: npt.NDArray[np.int64], parts: list[Piece]
    ) -> tuple[list[Image | None], list[int]]:
        """The images and labels of all samples that were begun; collective over the group.

        Returns:
            For each sample its image (None where the record is corrupt) and its label.

        Raises:
            CorruptRecord: naming file and place, on the lane that found it, when corrupt records
                are not skipped; the other lanes wait for the end of the job.
        """
        if self._alone:
            pieces, finders = parts, self._agree(parts)
        else:
            pieces, finders = self._share(turn, [int(i) for i in ids], parts)
        self._settle(pieces, finders)
        images = [p.memory.reshape(p.facts[:3]) if p.facts else None for p in pieces]
        return images, [p.facts[3] if p.facts else 0 for p in pieces]

    @property
    def _alone(self) -> bool:
        """Whether this lane reads all samples itself."""
        return self._channel.size == 1 or self._mode.io == "replicate"

    def _part(self, total: int) -> slice:
        """Which of so many samples this lane reads."""
        counts = self._mode.counts(total, self._channel.size)
        first = sum(counts[: self._channel.rank])
        return slice(first, first + counts[self._channel.rank])

    def _share(self, turn: Turn, ids: list[int], parts: list[Piece]) -> tuple[list[Piece], Labels]:
        """All lanes' parts, and for each piece the lane that found it corrupt if it is."""
        counts = self._mode.counts(len(ids), self._channel.size)
        rows = [(*(p.facts or (0, 0, 0, 0)), p.facts is None) for p in parts]
        facts = np.array(rows, np.int64).reshape(len(parts), 5)
        memories = [p.memory for p in parts]
        memories, all_facts = self._exchange.gather(turn, memories, facts, counts)
        pieces = [
            Piece(memory, None if corrupt else (height, width, channels, label))
            for memory, (height, width, channels, label, corrupt) in zip(
                memories, all_facts.tolist(), strict=True
            )
        ]
        for piece, part in zip(pieces[self._part(len(ids))], parts, strict=True):
            piece.problem = part.problem
        if self._mode.decoded:
            return pieces, np.repeat(np.arange(len(counts)), counts)
        pieces = self._workers.map(self._decode, list(zip(ids, pieces, strict=True)))
        return pieces, self._agree(pieces)

    def _agree(self, pieces: list[Piece]) -> Labels:
        """What is corrupt on one lane becomes so on all; the first lane that found each, or -1."""
        corrupt = np.array([piece.facts is None for piece in pieces])
        on_lanes = self._channel.gather_all(corrupt)
        for piece in (pieces[i] for i in np.flatnonzero(on_lanes.any(axis=0))):
            piece.facts = None
        # A lane that could not read knows the reason; one that got nothing to decode does not.
        told = self._channel.gather_all(np.array([bool(piece.problem) for piece in pieces]))
        return np.where(told.any(axis=0), told.argmax(axis=0), -1)

    def _settle(self, pieces: list[Piece], finders: Labels) -> None:
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

    def _image(self, item: tuple[int, Place]) -> Piece:
        sample_id, place = item
        try:
            record = self._source.read(sample_id)
            image, label = self._source.decode(record, place)
        except CorruptRecord as error:
            return Piece(_NONE, None, f"{self._source.where(sample_id)}: {error}")
        height, width, channels = image.shape
        return Piece(image.reshape(-1), (height, width, channels, label))

    def _record(self, item: tuple[int, Place]) -> Piece:
        sample_id, place = item
        try:
            record = np.frombuffer(self._source.read(sample_id), np.uint8)
        except CorruptRecord as error:
            return Piece(_NONE, None, f"{self._source.where(sample_id)}: {error}")
        memory = place(record.nbytes)
        memory[:] = record
        return Piece(memory, (0, 0, 0, 0))

    def _decode(self, item: tuple[int, Piece]) -> Piece:
        sample_id, piece = item
        if piece.facts is None:
            return piece
        try:
            image, label = self._source.decode(piece.memory.tobytes())
        except CorruptRecord as error:
            return Piece(_NONE, None, f"{self._source.where(sample_id)}: {error}")
        height, width, channels = image.shape
        return Piece(image.reshape(-1), (height, width, channels, label))
