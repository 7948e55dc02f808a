"""Which ranks the others wait for, from the seconds that ranks tell now and then."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ba_dist.comm.vote import edges

Table = npt.NDArray[np.float64]

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

    A rank keeps the seconds of its own steps. When a window is full it tells what they were, and
    the histogram of all ranks says whether any could be a straggler. Only then do the ranks gather
    what each of them has told: nothing that a step takes grows with the number of ranks.

    Args:
        window: number of steps in a window.
        warm_up: number of steps to skip at the start, while the graph is built.
    """

    def __init__(self, window: int = 20, warm_up: int = 4):
        self._window = window
        self._skip = warm_up
        self._steps: list[Sequence[float]] = []
        self._told: Sequence[float] = ()
        self._known: set[tuple[int, str]] = set()
        self._probe_in = 0
        self.links_suspected = False  # whether to measure the links; the same on all ranks

    def add(self, seconds: Sequence[float]) -> Sequence[float]:
        """Adds a step of this rank.

        Args:
            seconds: of waiting for input, reading, computing and the allreduce.

        Returns:
            What to tell the others with the next step, by `PHASES`; nothing but when a window is
            full. All ranks tell with the same step.
        """
        self._told = ()
        if self._skip:
            self._skip -= 1
            return ()
        self._steps.append(seconds)
        if len(self._steps) < self._window:
            return ()
        # The median of computing, to ignore single long steps. The mean of input, because reading
        # ahead makes its seconds come in bursts.
        means, medians = np.mean(self._steps, axis=0), np.median(self._steps, axis=0)
        whole = means[[0, 2, 3]].sum()
        self._steps = []
        self._told = (*means[:2].tolist(), *medians[2:].tolist(), float(whole))
        return self._told

    def look(
        self, paces: npt.NDArray[np.float64], gather: Callable[[Sequence[float]], Table]
    ) -> list[Straggler]:
        """The new stragglers, in the step with which ranks have told their seconds.

        Args:
            paces: float64 [phases, bins], how many ranks told which seconds, the same on all ranks.
            gather: what a rank has told → float64 [W, phases], those of all ranks; collective.
        """
        self.links_suspected = False
        if not paces.any():
            return []
        found: list[Straggler] = []
        if may_have_stragglers(paces):
            table = gather(self._told)
            waits, inputs, computes, _, steps = table.T
            found = stragglers(waits, inputs, computes, float(steps.max()))
        # The last rank does not wait for others in the allreduce: its seconds are the network's.
        self._probe_in -= 1
        least, longest = _ends(paces[3])[0], _ends(paces[4])[1]
        if self._probe_in <= 0 and _middle(least) > SHARE * _middle(longest):
            self.links_suspected, self._probe_in = True, _PROBE_WINDOWS
        new = [s for s in found if (s.rank, s.phase) not in self._known]
        self._known = {(s.rank, s.phase) for s in found}
        return new


def may_have_stragglers(paces: npt.NDArray[np.float64]) -> bool:
    """False only where `stragglers` finds none: each number is taken for the worst of its bin.

    Args:
        paces: float64 [phases, bins], how many ranks told which seconds.
    """
    waits, inputs, computes, _, steps = paces
    worth = SHARE * edges(_ends(steps)[1])[0]
    if _may_be_slow(computes, worth):
        return True
    return edges(_ends(waits)[1])[1] > worth and _may_be_slow(inputs, 0.0)


def _may_be_slow(counts: npt.NDArray[np.float64], worth: float) -> bool:
    below = np.cumsum(counts[1:])
    if below[-1] < 2:
        return False
    typical = edges(1 + int(np.searchsorted(below, (below[-1] + 1) // 2)))[0]  # lower median
    slowest = edges(_ends(counts)[1])[1]
    return bool(slowest > FACTOR * typical and slowest - typical > worth)


def _ends(counts: npt.NDArray[np.float64]) -> tuple[int, int]:
    """The first and the last bin that have a rank."""
    filled = np.flatnonzero(counts)
    return int(filled[0]), int(filled[-1])


def _middle(place: int) -> float:
    """Seconds in the middle of a bin; of the last one its beginning."""
    lower, upper = edges(place)
    return lower if upper == np.inf else (lower + upper) / 2
