"""From sample ids to samples on every lane of a group, each record read once per group or not.

Three modes, the same samples bit for bit:

    replicate     every lane reads and decodes all b records: what users have without groups
    broadcast     lane 0 reads, the group gets the encoded records, every lane decodes: the paper
    cooperative   lane l reads the l-th part; what goes between nodes is encoded or decoded:
        decoded   it also decodes its part, and the group gathers the decoded samples
        encoded   the lanes at the same seat of all nodes gather their records, so that each node
                  has every record once; they decode them, and the lanes of a node share the samples

A group on one node always gathers decoded samples in cooperative mode: nothing is sent.
"""

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ba_dist.comm import ByNode, Channel
from ba_dist.comm.shared_memory import Bytes
from ba_dist.data.group.exchange import Exchange, Slot
from ba_dist.data.sources import Allocate, Labels, Sample, Source, Workers, new_memory
from ba_dist.errors import CorruptRecord

Ids = npt.NDArray[np.int64]


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

    def decoded(self, one_node: bool) -> bool:
        """Whether a lane decodes what it has read before it gives it to the others.

        Args:
            one_node: whether all lanes are on one node.
        """
        if self.exchange == "auto" or (one_node and self.io == "cooperative"):
            return self.io == "cooperative"
        return self.exchange == "decoded"

    def counts(self, total: int, lanes: int) -> list[int]:
        """How many of so many records each lane reads for the group."""
        if self.io == "broadcast":
            return [total] + [0] * (lanes - 1)
        return [total * (lane + 1) // lanes - total * lane // lanes for lane in range(lanes)]


# A sample has at most so many axes: (H, W, C) for an image, (T,) for a text.
_AXES = 4


@dataclass
class Piece:
    """A record or a decoded sample on its way through the group.

    Args:
        memory: uint8 [bytes], of the encoded record or of the sample.
        shape: of a sample; empty for a record.
        label: of a sample; 0 for a record, which holds its label itself.
        corrupt: whether the record could not be read or decoded; `memory` then holds nothing.
        problem: why it is corrupt, known only to the lane that found it; empty elsewhere.
    """

    memory: Bytes
    shape: tuple[int, ...] = ()
    label: int = 0
    corrupt: bool = False
    problem: str = ""

    @classmethod
    def of_sample(cls, sample: Sample, label: int) -> "Piece":
        """A decoded sample."""
        return cls(sample.reshape(-1).view(np.uint8), sample.shape, label)

    @classmethod
    def of_corrupt(cls, problem: str) -> "Piece":
        """A sample that this lane found corrupt."""
        return cls(new_memory(0), corrupt=True, problem=problem)

    def sample(self, dtype: str) -> Sample | None:
        """The sample of a decoded piece; None if it is corrupt."""
        return None if self.corrupt else self.memory.view(dtype).reshape(self.shape)

    def facts(self) -> tuple[int, ...]:
        """The numbers that other lanes get beside the memory: label, corrupt, shape, then -1s."""
        missing = (-1,) * (_AXES - len(self.shape))
        return (self.label, self.corrupt, *self.shape, *missing)

    @classmethod
    def from_facts(cls, memory: Bytes, facts: list[int]) -> "Piece":
        """A piece as another lane sees it: without the problem."""
        label, corrupt, *sides = facts
        return cls(memory, tuple(side for side in sides if side >= 0), label, bool(corrupt))


@dataclass(frozen=True)
class Share:
    """What this lane has read of the samples of a step.

    Args:
        ids: int64 [b], all samples of the step, of every lane.
        slot: the step's memory in the ring.
        pieces: of the samples that this lane reads.
        node_slot: the step's memory in the ring of the node, where records go between nodes.
    """

    ids: Ids
    slot: Slot
    pieces: list[Piece]
    node_slot: Slot | None = None


class RecordExchange:
    """Turns the sample ids of a step into samples on every lane: `begin`, then `finish`.

    The next step may be begun, in another thread, before the last is finished.

    Args:
        source: the samples.
        channel: the ranks of the group.
        mode: who reads, and what is exchanged.
        workers: threads that read and decode.
        slots: steps until the memory of a step's samples is written again.
        sharing: ranks on this node, of all groups.
    """

    def __init__(
        self,
        source: Source,
        channel: Channel,
        mode: ReadMode,
        *,
        workers: Workers,
        slots: int,
        sharing: int,
    ):
        self._source, self._channel, self._mode = source, channel, mode
        self._workers = workers
        self._decoded = self._alone or mode.decoded(channel.on_one_node)
        by_node = mode.io == "cooperative" and not self._decoded
        self._nodes = channel.by_node() if by_node else None
        self._exchange = Exchange(self._nodes.across if self._nodes else channel, slots, sharing)
        self._node_exchange = Exchange(self._nodes.node, slots, sharing) if self._nodes else None

    def begin(self, ids: Ids) -> Share:
        """Reads this lane's share of a step, and decodes it where the mode says so."""
        node_slot = self._node_exchange.begin() if self._node_exchange else None
        return self._read(ids, self._exchange.begin(), node_slot)

    def finish(self, share: Share) -> tuple[list[Sample | None], list[int]]:
        """The decoded samples and labels of a step; collective over the group.

        Returns:
            Each sample (None where the record is corrupt) and its label.

        Raises:
            CorruptRecord: naming file and place, on the lane that found it, when corrupt records
                are not skipped; the other lanes wait for the end of the job.
        """
        if self._alone:
            pieces, finders = share.pieces, self._agree(share.pieces)
        elif self._nodes:
            pieces, finders = self._gather_by_node(share, self._nodes)
        else:
            pieces, finders = self._gather(share)
        self._settle(pieces, finders)
        dtype = self._source.info.dtype
        return [piece.sample(dtype) for piece in pieces], [piece.label for piece in pieces]

    def replace(self, share: Share, ids: Ids) -> tuple[list[Sample | None], list[int]]:
        """Like `begin` and `finish`, for further samples of a step that is finished.

        They go into the same slot, behind the step's own samples, as they live equally long.
        """
        return self.finish(self._read(ids, share.slot, share.node_slot))

    def close(self) -> None:
        """Gives shared memory back; collective, and no sample may be read any more."""
        self._exchange.close()
        if self._node_exchange:
            self._node_exchange.close()
        if self._nodes:
            for part in (self._nodes.across, self._nodes.node):
                self._channel.bytes_sent += part.bytes_sent
                part.free()

    @property
    def _alone(self) -> bool:
        """Whether this lane reads all samples itself."""
        return self._channel.size == 1 or self._mode.io == "replicate"

    def _read(self, ids: Ids, slot: Slot, node_slot: Slot | None) -> Share:
        if self._alone:
            pieces = self._workers.map(self._sample, [(int(i), new_memory) for i in ids])
        else:
            work = self._sample if self._decoded else self._record
            mine = ids[self._part(len(ids))]
            pieces = self._workers.map(work, [(int(i), slot.allocate) for i in mine])
        return Share(ids, slot, pieces, node_slot)

    def _part(self, total: int) -> slice:
        """Which of so many samples this lane reads."""
        counts = self._mode.counts(total, self._channel.size)
        first = sum(counts[: self._channel.rank])
        return slice(first, first + counts[self._channel.rank])

    def _gather(self, share: Share) -> tuple[list[Piece], Labels]:
        """All lanes' pieces, and for each the lane that found it corrupt, if it is."""
        counts = self._mode.counts(len(share.ids), self._channel.size)
        pieces = _all_of(self._exchange, share.slot, share.pieces, counts, self._channel.rank)
        if self._decoded:
            return pieces, np.repeat(np.arange(len(counts)), counts)
        items = [
            (i, piece, new_memory) for i, piece in zip(share.ids.tolist(), pieces, strict=True)
        ]
        pieces = self._workers.map(self._decode, items)
        return pieces, self._agree(pieces)

    def _gather_by_node(self, share: Share, nodes: ByNode) -> tuple[list[Piece], Labels]:
        """As `_gather`: records go between nodes, and samples are shared inside of one.

        The lanes at one seat of all nodes have read a part of the step. Each of them gets the
        records of this part and decodes them; the lanes of a node have all parts then.
        """
        assert self._node_exchange and share.node_slot
        counts = self._mode.counts(len(share.ids), self._channel.size)
        positions = np.split(np.arange(len(share.ids)), np.cumsum(counts)[:-1])
        parts = [np.concatenate([positions[lane] for lane in column]) for column in nodes.columns]
        seat, mine = nodes.node.rank, nodes.columns[nodes.node.rank]
        records = _all_of(
            *(self._exchange, share.slot, share.pieces),
            *([counts[lane] for lane in mine], nodes.across.rank),
        )
        ids, allocate = share.ids[parts[seat]].tolist(), share.node_slot.allocate
        items = [(i, record, allocate) for i, record in zip(ids, records, strict=True)]
        samples = self._workers.map(self._decode, items)
        if nodes.node.size > 1:
            sizes = [len(part) for part in parts]
            samples = _all_of(self._node_exchange, share.node_slot, samples, sizes, seat)
        order = np.argsort(np.concatenate(parts))
        pieces = [samples[i] for i in order]
        return pieces, self._agree(pieces)

    def _agree(self, pieces: list[Piece]) -> Labels:
        """Marks as corrupt on all lanes what is corrupt on one; collective over the group.

        Returns:
            int64 [pieces], the first lane that knows why each is corrupt, -1 where none is.
        """
        corrupt = np.array([piece.corrupt for piece in pieces])
        on_lanes = self._channel.gather_all(corrupt)
        for i in np.flatnonzero(on_lanes.any(axis=0)):
            pieces[i].corrupt = True
        # The lane that could not read it knows why; those that got nothing to decode do not.
        knows_why = self._channel.gather_all(np.array([bool(piece.problem) for piece in pieces]))
        return np.where(knows_why.any(axis=0), knows_why.argmax(axis=0), -1)

    def _settle(self, pieces: list[Piece], finders: Labels) -> None:
        """Warns of corrupt records, or stops: once in the group, by the lane that knows why."""
        corrupt = [i for i, piece in enumerate(pieces) if piece.corrupt]
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

    def _sample(self, item: tuple[int, Allocate]) -> Piece:
        sample_id, allocate = item
        try:
            return Piece.of_sample(*self._source.decode(self._source.read(sample_id), allocate))
        except CorruptRecord as error:
            return self._corrupt(sample_id, error)

    def _record(self, item: tuple[int, Allocate]) -> Piece:
        sample_id, allocate = item
        try:
            record = np.frombuffer(self._source.read(sample_id), np.uint8)
        except CorruptRecord as error:
            return self._corrupt(sample_id, error)
        memory = allocate(record.nbytes)
        memory[:] = record
        return Piece(memory)

    def _decode(self, item: tuple[int, Piece, Allocate]) -> Piece:
        sample_id, piece, allocate = item
        if piece.corrupt:
            return piece
        try:
            return Piece.of_sample(*self._source.decode(piece.memory.tobytes(), allocate))
        except CorruptRecord as error:
            return self._corrupt(sample_id, error)

    def _corrupt(self, sample_id: int, error: CorruptRecord) -> Piece:
        return Piece.of_corrupt(f"{self._source.where(sample_id)}: {error}")


def _all_of(
    exchange: Exchange, slot: Slot, mine: list[Piece], counts: list[int], rank: int
) -> list[Piece]:
    """The pieces of all ranks of an exchange, in order of ranks; collective over them.

    Args:
        exchange: that brings them.
        slot: the step that they belong to.
        mine: this rank's pieces, which keep the problems that it has found.
        counts: how many pieces each rank gives.
        rank: this one, in the exchange.
    """
    facts = np.array([piece.facts() for piece in mine], np.int64).reshape(len(mine), 2 + _AXES)
    memories, all_facts = exchange.gather(slot, [piece.memory for piece in mine], facts, counts)
    pieces = [Piece.from_facts(*one) for one in zip(memories, all_facts.tolist(), strict=True)]
    first = sum(counts[:rank])
    for piece, own in zip(pieces[first : first + len(mine)], mine, strict=True):
        piece.problem = own.problem
    return pieces
