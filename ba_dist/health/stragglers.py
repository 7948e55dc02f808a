"""Which ranks the others wait for, from the table of seconds that every step has."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FACTOR = 3.0  # a straggler is slower than the typical rank by this factor; less may be noise
SHARE = 0.2  # a straggler costs at least this share of a step
_PROBE_WINDOWS = 10  # windows between two measurements of the links


@dataclass(frozen=True)
class Straggler:
    """A rank that is slow in one phase.

    Args:
        rank: number of the rank in the world.
        phase: input, compute or allreduce.
        seconds: time that it takes for a step.
        typical: seconds that the other ranks take.
    """

    rank: int
    phase: str
    seconds: float
    typical: float

    def __str__(self) -> str:
        return (
            f"{self.seconds / max(self.typical, 1e-9):.1f} times slower than the others in"
            f" {self.phase} ({self.seconds:.3g} s a step, theirs {self.typical:.3g} s)"
        )


def stragglers(
    waits: npt.NDArray[np.float64],
    inputs: npt.NDArray[np.float64],
    computes: npt.NDArray[np.float64],
    step_seconds: float,
) -> list[Straggler]:
    """The ranks that others wait for; none where there is only one rank.

    A rank is a straggler if it takes more than `FACTOR` times as long as the typical rank, and
    training loses more than `SHARE` of a step by it. Reading ahead can hide slow input, so input
    counts only while training waits for it on some rank.

    Args:
        waits: float64 [W], seconds a step that training waits for input.
        inputs: float64 [W], seconds a step of reading and decoding; 0 where a rank reads nothing.
        computes: float64 [W], seconds a step of computing the gradient.
        step_seconds: seconds of a whole step.
    """
    worth = SHARE * step_seconds
    found = _slow("compute", computes, worth)
    if waits.max() > worth:
        found += _slow("input", inputs, 0.0)
    return found


def _slow(phase: str, seconds: npt.NDArray[np.float64], worth: float) -> list[Straggler]:
    working = np.sort(seconds[seconds > 0])
    if len(working) < 2:
        return []
    # The lower median: of two ranks the faster one is the typical one.
    typical = float(working[(len(working) - 1) // 2])
    slow = np.flatnonzero((seconds > FACTOR * typical) & (seconds - typical > worth))
    return [Straggler(int(rank), phase, float(seconds[rank]), typical) for rank in slow]


def slow_links(seconds: npt.NDArray[np.float64], hosts: list[str]) -> list[Straggler]:
    """The first ranks of hosts whose link is slow in both directions; none of fewer than 3 hosts.

    Args:
        seconds: float64 [W], that a message takes from each rank to the next, and from the last
            rank to the first.
        hosts: host of each rank; the ranks of a host are consecutive.
    """
    world = len(hosts)
    begins = [rank for rank in range(world) if hosts[rank] != hosts[rank - 1]]
    if len(begins) < 3:
        return []
    arriving = np.array([seconds[rank - 1] for rank in begins])
    leaving = np.roll(arriving, -1)  # what arrives at the next host has left this one
    both = np.minimum(arriving, leaving)
    typical = float(np.median(both))
    slow = np.flatnonzero(both > FACTOR * typical)
    return [Straggler(begins[i], "allreduce", float(both[i]), typical) for i in slow]


class StragglerWatch:
    """Looks for stragglers in windows of steps; each is reported once, until it is none any more.

    Args:
        window: number of steps in a window.
        warm_up: number of steps to skip at the start, while the graph is built.
    """

    def __init__(self, window: int = 20, warm_up: int = 4):
        self._window = window
        self._skip = warm_up
        self._tables: list[npt.NDArray[np.float64]] = []
        self._known: set[tuple[int, str]] = set()
        self._probe_in = 0
        self.links_suspected = False  # whether to measure the links; the same on all ranks

    def step(self, table: npt.NDArray[np.float64]) -> list[Straggler]:
        """Adds a step, and returns the new stragglers when a window is full.

        Args:
            table: float64 [W, 4], seconds of waiting for input, reading, computing and the
                allreduce; the same on every rank.
        """
        self.links_suspected = False
        if self._skip:
            self._skip -= 1
            return []
        self._tables.append(table)
        if len(self._tables) < self._window:
            return []
        # The median of computing, to ignore single long steps. The mean of input, because reading
        # ahead makes its seconds come in bursts.
        means, medians = np.mean(self._tables, axis=0), np.median(self._tables, axis=0)
        self._tables = []
        step_seconds = float(means[:, [0, 2, 3]].sum(axis=1).max())
        found = stragglers(means[:, 0], means[:, 1], medians[:, 2], step_seconds)
        # The last rank does not wait for others in the allreduce: its seconds are the network's.
        self._probe_in -= 1
        if self._probe_in <= 0 and medians[:, 3].min() > SHARE * step_seconds:
            self.links_suspected, self._probe_in = True, _PROBE_WINDOWS
        new = [s for s in found if (s.rank, s.phase) not in self._known]
        self._known = {(s.rank, s.phase) for s in found}
        return new
