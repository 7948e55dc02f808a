"""What the lanes of a group give each other: through memory that they share, or by messages."""

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
class Turn:
    """A lane's slot for one turn, filled from its beginning.

    Args:
        number: of the turn.
        slot: where this lane's pieces go, uint8 [capacity].
    """

    number: int
    slot: Bytes
    _used: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def place(self, size: int) -> Bytes:
        """Memory for a piece of this lane's part; may be called by several threads."""
        with self._lock:
            start = self._used
            self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return (
            self.slot[start : start + size] if start + size <= len(self.slot) else new_memory(size)
        )


class Exchange:
    """Gathers the parts of a batch from all lanes, again and again.

    On one node a lane writes its part where the others read it: nothing is copied. The memory is a
    ring of `slots`; a slot is written again `slots` turns later, when nobody may read it any more.
    The size of the parts is not known before: what does not fit goes by messages, once, and the
    slots grow.

    Args:
        channel: the ranks of the group.
        slots: turns that what was gathered must stay.
        sharing: ranks on this node that share its memory, of all groups.
    """

    def __init__(self, channel: Channel, slots: int, sharing: int = 1):
        self._channel = channel
        self._slots = slots
        self._sharing = max(sharing, channel.size)
        self._possible = channel.size > 1 and channel.on_one_node
        self._memory: SharedMemory | None = None
        self._outgrown: list[SharedMemory] = []
        self._turns = 0
        self.shared = False  # whether the last pieces went through shared memory

    def begin(self) -> Turn:
        """A new turn, also before the last is gathered; the oldest slot must be free."""
        self._turns += 1
        return Turn(self._turns, self._slot(self._memory, self._turns, self._channel.rank))

    def gather(
        self, turn: Turn, pieces: list[Bytes], facts: Facts, counts: list[int]
    ) -> tuple[list[Bytes], Facts]:
        """All lanes' pieces, in order of lanes; collective over the group.

        Args:
            turn: that they belong to.
            pieces: this lane's, uint8 [any], best in memory from `turn.place`.
            facts: int64 [pieces, f], a row of numbers that goes with each.
            counts: how many pieces each lane gives.

        Returns:
            All pieces and their facts. Pieces of other lanes are only to be read.
        """
        table = self._share_facts(turn, pieces, facts, counts)
        starts, sizes, all_facts = table[:, 0], table[:, 1], table[:, 2:]
        lanes = np.repeat(np.arange(len(counts)), counts)
        self.shared = self._memory is not None and bool((starts >= 0).all())
        if self.shared and self._memory:
            self._memory.sync()
            self._channel.bytes_sent += sum(piece.nbytes for piece in pieces)
            slots = [self._slot(self._memory, turn.number, lane) for lane in range(len(counts))]
            places = zip(lanes, starts, sizes, strict=True)
            return [slots[lane][start : start + size] for lane, start, size in places], all_facts
        widths = np.bincount(lanes, sizes, len(counts)).astype(np.int64)
        gathered = self._by_message(pieces, sizes, widths)
        if self._possible:
            padding = _ALIGNMENT * (1 + np.bincount(lanes, minlength=len(counts)).max())
            needed = int(widths.max() + padding)
            # A lane may have begun the turn before the last growth, with room enough since.
            if self._memory is None or needed > self._memory.size // self._slots:
                self._grow(needed)
        return gathered, all_facts

    def _share_facts(
        self, turn: Turn, pieces: list[Bytes], facts: Facts, counts: list[int]
    ) -> Facts:
        """[all pieces, 2 + f]: start in the slot (-1: elsewhere), size, facts."""
        mine = np.zeros((max(counts), 2 + facts.shape[1]), np.int64)
        if pieces:
            mine[: len(pieces), 0] = [self._start(turn, piece) for piece in pieces]
            mine[: len(pieces), 1] = [piece.nbytes for piece in pieces]
            mine[: len(pieces), 2:] = facts
        if self._memory is not None:
            self._memory.sync()
        rows = self._channel.gather_all(mine)
        return np.concatenate([rows[lane, :count] for lane, count in enumerate(counts)])

    def _by_message(self, pieces: list[Bytes], sizes: Facts, widths: Facts) -> list[Bytes]:
        givers = np.flatnonzero(widths)
        if len(givers) == 1:
            giver = int(givers[0])
            mine = giver == self._channel.rank
            joined = np.concatenate(pieces) if mine else new_memory(int(widths.sum()))
            self._channel.broadcast(joined, giver)
        else:
            joined = self._channel.concatenate(
                np.concatenate(pieces) if pieces else new_memory(0), widths
            )
        return np.split(joined, np.cumsum(sizes)[:-1])

    def _grow(self, needed: int) -> None:
        """Makes slots of half as much again, if there is room on every lane; collective."""
        capacity = needed + needed // 2
        on_node = capacity * self._slots * self._sharing
        if self._memory is not None:
            # What was gathered into the old slots may still be looked at.
            self._outgrown.append(self._memory)
        if self._channel.lacks_room(2 * on_node):
            self._possible, self._memory = False, None
        else:
            self._memory = self._channel.shared_memory(capacity * self._slots)

    def close(self) -> None:
        """Gives shared memory back; collective, and no piece may be looked at any more."""
        for memory in [*self._outgrown, *([self._memory] if self._memory else [])]:
            memory.free()
        self._outgrown, self._memory, self._possible = [], None, False

    def _slot(self, memory: SharedMemory | None, turn: int, lane: int) -> Bytes:
        if memory is None:
            return new_memory(0)
        capacity = memory.size // self._slots
        start = turn % self._slots * capacity
        return memory.parts[lane][start : start + capacity]

    def _start(self, turn: Turn, piece: Bytes) -> int:
        """Where a piece lies in this lane's slot as it is now, -1 if it lies elsewhere."""
        if not piece.nbytes:
            return 0
        slot = self._slot(self._memory, turn.number, self._channel.rank)
        start = piece.ctypes.data - slot.ctypes.data
        return start if start >= 0 and start + piece.nbytes <= len(slot) else -1
