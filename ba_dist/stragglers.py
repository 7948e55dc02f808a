"""Which ranks hold all others up, from the table of seconds that every step carries."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FACTOR = 3.0  # times the typical rank: less is noise on a shared machine
SHARE = 0.2  # of a step that must be lost before it is worth a word


@dataclass(frozen=True)
class Straggler:
    """A rank that is slow, in what, and how that compares.

    Args:
        rank: of the world.
        phase: input or compute.
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
        self._seconds: list[float] = []
        self._known: set[tuple[int, str]] = set()

    def step(self, table: npt.NDArray[np.float64], seconds: float) -> list[Straggler]:
        """Counts a step; at the end of a window the stragglers that are new.

        Args:
            table: [W, 3] seconds of waiting for input, of reading, of computing.
            seconds: of the whole step.
        """
        if self._skip:
            self._skip -= 1
            return []
        self._tables.append(table)
        self._seconds.append(seconds)
        if len(self._tables) < self._window:
            return []
        # The median of computing: one long step is a hiccup. Read-ahead comes in bursts: the mean.
        means, medians = np.mean(self._tables, axis=0), np.median(self._tables, axis=0)
        found = stragglers(means[:, 0], means[:, 1], medians[:, 2], float(np.mean(self._seconds)))
        self._tables, self._seconds = [], []
        new = [s for s in found if (s.rank, s.phase) not in self._known]
        self._known = {(s.rank, s.phase) for s in found}
        return new
