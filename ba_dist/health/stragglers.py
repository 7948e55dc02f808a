"""Which ranks hold all others up, from the table of seconds that every step carries."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FACTOR = 3.0  # times the typical rank: less is noise on a shared machine
SHARE = 0.2  # of a step that must be lost before it is worth a word
_PROBE_WINDOWS = 10  # between two looks at the links; a network may be slow everywhere


@dataclass(frozen=True)
class Straggler:
    """A rank that is slow, in what, and how that compares.

    Args:
        rank: of the world.
        phase: input, compute or allreduce.
        seconds: that it takes for a step.
        typical: seconds that the others take.
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
    """The ranks that others wait for; of a world of one, none.

    A rank is one if it takes more than `FACTOR` times as long as the typical rank, and training
    loses more than the `SHARE` of a step by it. Reading ahead hides slow input: it counts only
    while training waits for it somewhere.

    Args:
        waits: [W] seconds a step that training waited for input.
        inputs: [W] seconds a step of reading and decoding this rank's part; 0 where it reads none.
        computes: [W] seconds a step of computing the gradient.
        step_seconds: of a whole step.
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
    # The lower median: of two ranks the faster one is the typical.
    typical = float(working[(len(working) - 1) // 2])
    slow = np.flatnonzero((seconds > FACTOR * typical) & (seconds - typical > worth))
    return [Straggler(int(rank), phase, float(seconds[rank]), typical) for rank in slow]


def slow_links(seconds: npt.NDArray[np.float64], hosts: list[str]) -> list[Straggler]:
    """The ranks at which a host begins whose link is slow both ways; of fewer than 3 hosts, none.

    Args:
        seconds: [W] that a message takes from each rank to the next, the last one to the first.
        hosts: of the ranks, those of a host one after the other.
    """
    world = len(hosts)
    begins = [rank for rank in range(world) if hosts[rank] != hosts[rank - 1]]
    if len(begins) < 3:
        return []
    arriving = np.array([seconds[rank - 1] for rank in begins])
    leaving = np.roll(arriving, -1)  # where the next host begins, the message left this one
    both = np.minimum(arriving, leaving)
    typical = float(np.median(both))
    slow = np.flatnonzero(both > FACTOR * typical)
    return [Straggler(begins[i], "allreduce", float(both[i]), typical) for i in slow]


class StragglerWatch:
    """Looks at windows of steps, and names a straggler once for as long as it stays one.

    Args:
        window: steps of a window.
        warm_up: steps before the first, which build the graph.
    """

    def __init__(self, window: int = 20, warm_up: int = 4):
        self._window = window
        self._skip = warm_up
        self._tables: list[npt.NDArray[np.float64]] = []
        self._known: set[tuple[int, str]] = set()
        self._probe_in = 0
        self.links_suspected = False  # whether the links are to be looked at, on all ranks alike

    def step(self, table: npt.NDArray[np.float64]) -> list[Straggler]:
        """Counts a step; at the end of a window the stragglers that are new.

        Args:
            table: [W, 4] seconds of waiting for input, reading, computing and the allreduce, the
                same on every rank.
        """
        self.links_suspected = False
        if self._skip:
            self._skip -= 1
            return []
        self._tables.append(table)
        if len(self._tables) < self._window:
            return []
        # The median of computing: one long step is a hiccup. Read-ahead comes in bursts: the mean.
        means, medians = np.mean(self._tables, axis=0), np.median(self._tables, axis=0)
        self._tables = []
        step_seconds = float(means[:, [0, 2, 3]].sum(axis=1).max())
        found = stragglers(means[:, 0], means[:, 1], medians[:, 2], step_seconds)
        # The rank that comes last does not wait for others: what it spends is the network's time.
        self._probe_in -= 1
        if self._probe_in <= 0 and medians[:, 3].min() > SHARE * step_seconds:
            self.links_suspected, self._probe_in = True, _PROBE_WINDOWS
        new = [s for s in found if (s.rank, s.phase) not in self._known]
        self._known = {(s.rank, s.phase) for s in found}
        return new
