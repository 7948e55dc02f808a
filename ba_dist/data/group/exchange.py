"""Brings the pieces of all lanes to all lanes: through memory that they share, or by messages."""

import threading
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ba_dist.comm import Channel
from ba_dist.comm.shared_memory import Bytes, SharedMemory
from ba_dist.data.sources import new_memory

_ALIGNMENT = 64
Facts = npt.NDArray[np.int64]


@dataclass
class Slot:
    """This lane's memory in the ring for one step, filled from its beginning.

    Args:
        number: counts the slots that have been begun, from 1.
        memory: uint8 [capacity], shared with the other lanes; empty where nothing is shared.
    """

    number: int
    memory: Bytes
    _used: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def allocate(self, size: int) -> Bytes:
        """`size` bytes for a piece, outside the slot when it is full; for several threads."""
        with self._lock:
            start = self._used
            self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        end = start + size
        return self.memory[start:end] if end <= len(self.memory) else new_memory(size)


class Exchange:
    """Gathers the pieces of all lanes, step after step.

    On one node a lane writes its pieces where the others read them, so nothing is copied. The
    memory is a ring: each lane has `slots` slots, and slot n is written again as slot n + `slots`.
    By then nobody may read it any more; whoever uses the exchange must see to that.

    How large the pieces are is not known before they are there. Pieces that do not fit into their
    slot are sent by messages, and then all slots are made larger.

    Args:
        channel: the ranks of the group.
        slots: slots of each lane; gathered pieces stay as they are until so many more are begun.
        sharing: ranks on this node, of all groups; they take their memory from the same /dev/shm.
    """

    def __init__(self, channel: Channel, slots: int, sharing: int = 1):
        self._channel = channel
        self._slots = slots
        self._sharing = max(sharing, channel.size)
        self._may_share = channel.size > 1 and channel.on_one_node
        self._memory: SharedMemory | None = None
        self._outgrown: list[SharedMemory] = []
        self._begun = 0
        self.shared = False  # whether the last pieces went through shared memory

    def begin(self) -> Slot:
        """The next slot; pieces may be put into it before those of the last are gathered."""
        self._begun += 1
        return Slot(self._begun, self._slot_memory(self._begun, self._channel.rank))

    def gather(
        self, slot: Slot, pieces: list[Bytes], facts: Facts, counts: list[int]
    ) -> tuple[list[Bytes], Facts]:
        """All lanes' pieces, in order of lanes; collective over the group.

        Args:
            slot: the step that they belong to; the same number on every lane.
            pieces: this lane's, uint8 [any], best in memory from `slot.allocate`.
            facts: int64 [pieces, f], a row of numbers that goes with each.
            counts: how many pieces each lane gives.

        Returns:
            All pieces and their facts. Pieces of other lanes may only be read.
        """
        if not sum(counts):
            return [], facts
        table = self._share_facts(slot, pieces, facts, counts)
        starts, sizes, all_facts = table[:, 0], table[:, 1], table[:, 2:]
        lanes = np.repeat(np.arange(len(counts)), counts)
        self.shared = self._memory is not None and bool((starts >= 0).all())
        if self.shared and self._memory:
            self._memory.sync()
            self._channel.bytes_sent += sum(piece.nbytes for piece in pieces)
            memories = [self._slot_memory(slot.number, lane) for lane in range(len(counts))]
            rows = zip(lanes, starts, sizes, strict=True)
            return [memories[lane][start : start + size] for lane, start, size in rows], all_facts
        totals = np.bincount(lanes, sizes, len(counts)).astype(np.int64)
        gathered = self._by_message(pieces, sizes, totals)
        if self._may_share:
            padding = _ALIGNMENT * (1 + np.bincount(lanes, minlength=len(counts)).max())
            needed = int(totals.max() + padding)
            # The slots may have grown since a lane began this one: then they are large enough now.
            if self._memory is None or needed > self._memory.size // self._slots:
                self._grow(needed)
        return gathered, all_facts

    def _share_facts(
        self, slot: Slot, pieces: list[Bytes], facts: Facts, counts: list[int]
    ) -> Facts:
        """[all pieces, 2 + f]: where each starts in its slot (-1: elsewhere), its size, facts."""
        mine = np.zeros((max(counts), 2 + facts.shape[1]), np.int64)
        if pieces:
            mine[: len(pieces), 0] = [self._start(slot, piece) for piece in pieces]
            mine[: len(pieces), 1] = [piece.nbytes for piece in pieces]
            mine[: len(pieces), 2:] = facts
        if self._memory is not None:
            self._memory.sync()
        rows = self._channel.gather_all(mine)
        return np.concatenate([rows[lane, :count] for lane, count in enumerate(counts)])

    def _by_message(self, pieces: list[Bytes], sizes: Facts, totals: Facts) -> list[Bytes]:
        """All lanes' pieces; `sizes` is that of each piece, `totals` the bytes of each lane."""
        senders = np.flatnonzero(totals)
        if len(senders) == 1:
            sender = int(senders[0])
            mine = sender == self._channel.rank
            joined = np.concatenate(pieces) if mine else new_memory(int(totals.sum()))
            self._channel.broadcast(joined, sender)
        else:
            joined = self._channel.concatenate(
                np.concatenate(pieces) if pieces else new_memory(0), totals
            )
        return np.split(joined, np.cumsum(sizes)[:-1])

    def _grow(self, needed: int) -> None:
        """Makes slots of half as much again, if there is room on every lane; collective."""
        capacity = needed + needed // 2
        on_node = capacity * self._slots * self._sharing
        if self._memory is not None:
            # Pieces that were gathered into the old slots may still be read.
            self._outgrown.append(self._memory)
        if self._channel.lacks_room(2 * on_node):
            self._may_share, self._memory = False, None
        else:
            self._memory = self._channel.shared_memory(capacity * self._slots)

    def close(self) -> None:
        """Gives shared memory back; collective, and no piece may be read any more."""
        for memory in [*self._outgrown, *([self._memory] if self._memory else [])]:
            memory.free()
        self._outgrown, self._memory, self._may_share = [], None, False

    def _slot_memory(self, number: int, lane: int) -> Bytes:
        """A lane's slot in the ring as it is now, which may have grown since the slot was begun."""
        if self._memory is None:
            return new_memory(0)
        capacity = self._memory.size // self._slots
        start = number % self._slots * capacity
        return self._memory.parts[lane][start : start + capacity]

    def _start(self, slot: Slot, piece: Bytes) -> int:
        """Where a piece lies in this lane's slot as it is now, -1 if it lies elsewhere."""
        if not piece.nbytes:
            return 0
        memory = self._slot_memory(slot.number, self._channel.rank)
        start = piece.ctypes.data - memory.ctypes.data
        return start if start >= 0 and start + piece.nbytes <= len(memory) else -1
