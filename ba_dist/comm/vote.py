"""What ranks tell each other in every step, in the one allreduce of the step.

What a rank sends and gets does not grow with the number of ranks. Seconds go into a histogram: a
rank adds one to a bin of each phase, so the sum says how many ranks took how long, not which ones.
Whoever sees in it that some are slow gathers the seconds themselves (`health/stragglers.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_FLAGS = ("stop", "save", "corrupt")
# What seconds are of: waiting for input, reading this rank's part of it, computing, summing, and
# all of a step but the reading.
PHASES = ("wait", "input", "compute", "allreduce", "step")
# Bin 0 is for a rank that does not work in a phase. Bin i > 0 begins at FIRST · RATIO^(i-1)
# seconds; the first one also has what is shorter, the last one, from 4,600 s on, what is longer.
FIRST, RATIO, BINS = 1e-6, 1.25, 101


@dataclass(frozen=True)
class Vote:
    """What a rank tells the others with a step, beside its gradient.

    Args:
        stop: whether it wishes to stop.
        save: whether it wishes that the state is saved after the step.
        corrupt: corrupt records that it reports.
        seconds: of its last steps, by `PHASES`; empty where there is nothing to tell.
    """

    stop: bool = False
    save: bool = False
    corrupt: int = 0
    seconds: Sequence[float] = ()


def tell(vote: Vote) -> npt.NDArray[np.float64]:
    """A vote as a row of numbers; the sum of the rows of all ranks is what `hear` takes apart.

    Returns:
        [flags + phases · bins], whatever the number of ranks.
    """
    row = np.zeros(len(_FLAGS) + len(PHASES) * BINS)
    row[: len(_FLAGS)] = [float(getattr(vote, name)) for name in _FLAGS]
    if vote.seconds:
        counts = row[len(_FLAGS) :].reshape(len(PHASES), BINS)
        counts[np.arange(len(PHASES)), bins(np.array(vote.seconds))] = 1
    return row


def hear(row: npt.NDArray[np.float64]) -> tuple[list[float], npt.NDArray[np.float64]]:
    """Takes the sum of all rows apart: sums of the flags, counts [phases, bins] of ranks."""
    return row[: len(_FLAGS)].tolist(), row[len(_FLAGS) :].reshape(len(PHASES), BINS)


def bins(seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The bin of each number of seconds."""
    place = 1 + np.floor(np.log(np.maximum(seconds, FIRST) / FIRST) / np.log(RATIO))
    found: npt.NDArray[np.int64] = np.where(seconds > 0, np.clip(place, 1, BINS - 1), 0).astype(int)
    return found


def edges(place: int) -> tuple[float, float]:
    """(lower, upper) seconds of a bin."""
    if place == 0:
        return 0.0, 0.0
    lower = FIRST * RATIO ** (place - 1) if place > 1 else 0.0
    return lower, FIRST * RATIO**place if place < BINS - 1 else np.inf
