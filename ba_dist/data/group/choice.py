"""What goes between the nodes of a group, records or samples: the faster one of both, measured.

A record is smaller than its sample, but each node then decodes all records of a batch. Which of
them costs more depends on the network, the cores and the data, so both ways read the same few
samples, all groups at the same time, as they will in training.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import numpy.typing as npt

from ba_dist.comm import Channel, Comm
from ba_dist.data.group.group_reader import GroupReader
from ba_dist.data.group.record_exchange import ReadMode
from ba_dist.data.sources import Source, Workers
from ba_dist.errors import CorruptRecord
from ba_dist.rules.layout import Layout

WAYS = ("encoded", "decoded")
_AT_LEAST, _OF_A_LANE = 64, 8  # samples of a trial's batch: small ones pay more for each message
_PREFETCH = 2
# Batches. As many as are made ahead come behind those that are timed, of which the last would
# otherwise be made while nothing else is, and look too fast.
_WARM_UP, _TIMED = 2, 3
# Both ways take turns. The first turn of all is slow, whichever way it is: threads and connections
# begin with it. Where the least of each tells them apart, that is enough. Elsewhere the median
# counts: one lucky turn is not what a run has.
_FEWEST_TURNS, _MOST_TURNS, _CLEAR = 2, 4, 1.5


@dataclass(frozen=True)
class Exchange:
    """What the lanes of a group give each other.

    Args:
        way: encoded or decoded; auto where nothing was to be chosen.
        milliseconds: way → of a sample, on the slowest rank; empty where nothing was measured.
    """

    way: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)

    def text(self) -> str:
        """A line for a person; empty where nothing was measured."""
        if not self.milliseconds:
            return ""
        other = next(way for way in WAYS if way != self.way)
        mine, others = self.milliseconds[self.way], self.milliseconds[other]
        return (
            f"groups span nodes: samples go between them {self.way}, {mine:.2f} ms each; {other}"
            f" it would be {others:.2f} ms (measured)"
        )


def choose(
    mode: ReadMode, source: Source, comm: Comm, layout: Layout, workers: Workers
) -> Exchange:
    """The faster way, the same on all ranks; collective over the world.

    Only a group that reads together and spans nodes has a choice. Whatever is chosen, a batch holds
    the same samples.

    Args:
        mode: as it was asked for.
        source: the samples; what is read here does not count.
        comm: the world.
        layout: of the ranks.
        workers: threads that read and decode.
    """
    if (mode.io, mode.exchange) != ("cooperative", "auto") or layout.group_size == 1:
        return Exchange(mode.exchange)
    channel = comm.group(layout)
    chosen = _faster(source, comm, layout, channel, workers)
    channel.free()  # not in a finally: it is collective, and a rank that has failed is elsewhere
    return chosen


def _faster(
    source: Source, comm: Comm, layout: Layout, channel: Channel, workers: Workers
) -> Exchange:
    if not comm.any(not channel.on_one_node):
        return Exchange("decoded")
    before = source.counters.as_dict()
    wanted = max(_AT_LEAST, _OF_A_LANE * layout.group_size)
    ids = _readable(source, channel, min(layout.group_batch, wanted))
    if not comm.world.gather_all(np.array(len(ids))).all():
        return Exchange("encoded")  # the smaller messages

    def turn(way: str) -> float:
        mine = _seconds(ReadMode("cooperative", way), source, channel, ids, workers, comm)
        return 1000 * float(comm.world.gather_all(np.array(mine)).max())  # so all ranks agree

    milliseconds = compared(turn)
    after = source.counters.as_dict()
    source.counters.add(**{name: before[name] - after[name] for name in before})
    return Exchange(min(WAYS, key=lambda way: milliseconds[way]), milliseconds)


def compared(turn: Callable[[str], float]) -> dict[str, float]:
    """Way → what its turns took; as many turns as it takes to tell them apart.

    Args:
        turn: way → what one turn of it takes, the same on all ranks.
    """
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(1, _MOST_TURNS + 1):
        for way in WAYS:
            taken[way].append(turn(way))
        found = {way: min(turns) for way, turns in taken.items()}
        if max(found.values()) > _CLEAR * min(found.values()) and number >= _FEWEST_TURNS:
            return found
    return {way: median(turns) for way, turns in taken.items()}


def _readable(source: Source, channel: Channel, count: int) -> npt.NDArray[np.int64]:
    """The ids of so many samples at most that no lane finds corrupt, read once by who reads them.

    So storage is as warm for the first way as for the second.
    """
    ids = np.unique(np.linspace(0, len(source) - 1, count).astype(np.int64))
    counts = ReadMode().counts(len(ids), channel.size)
    first = sum(counts[: channel.rank])
    good = np.zeros(len(ids), bool)
    for i in range(first, first + counts[channel.rank]):
        try:
            source.decode(source.read(int(ids[i])))
            good[i] = True
        except CorruptRecord:
            pass
    return ids[channel.gather_all(good).any(axis=0)]


class _SameSamples:
    """An order in which every step has the same few samples."""

    def __init__(self, ids: npt.NDArray[np.int64]):
        self._ids = ids

    def __call__(self, step: int) -> tuple[int, npt.NDArray[np.int64]]:
        return 0, self._ids

    def later(self, step: int, steps: int) -> npt.NDArray[np.int64]:
        """As the sampler of a run has it, for corrupt samples, of which there are none here."""
        return self._ids


def _seconds(
    mode: ReadMode,
    source: Source,
    channel: Channel,
    ids: npt.NDArray[np.int64],
    workers: Workers,
    comm: Comm,
) -> float:
    """Seconds of a sample on this lane, all groups reading at the same time; collective."""
    comm.world.barrier()
    reader = GroupReader(
        source,
        _SameSamples(ids),
        channel,
        mode,
        first=0,
        last=_WARM_UP + _TIMED + _PREFETCH,
        prefetch=_PREFETCH,
        workers=workers,
        sharing=comm.node.size,
    )
    arrivals = []
    for _ in reader:
        arrivals.append(time.perf_counter())
        reader.advance()
    reader.close()
    return (arrivals[_WARM_UP + _TIMED - 1] - arrivals[_WARM_UP - 1]) / (_TIMED * len(ids))
