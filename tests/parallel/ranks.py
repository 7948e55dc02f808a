"""Runs programs on several ranks, which the launcher starts that users have."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.parallel.standing import StandingRanks

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "launch" / "mpirun.sh"
PROGRAMS = Path(__file__).parent / "programs"
WORLD_SIZES = (1, 2, 3, 4, 6)
STANDING: dict[int, StandingRanks] = {}
MOST_STANDING = 4  # each rank holds 200 MB of memory; larger worlds run one or two programs only

Run = Callable[..., subprocess.CompletedProcess[str]]


def mpirun(
    ranks: int, *words: object, timeout: float = 300, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Starts `ba-dist WORDS` (or `python WORDS…`) on so many ranks; its output is in the result."""
    command = [str(LAUNCHER), "-n", str(ranks), "--", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    return _checked(done, check)


def on_ranks(
    ranks: int, *words: object, timeout: float = 300, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """As mpirun, but on ranks that stand ready; the first call for a number of ranks starts them.

    For what loads TensorFlow and ends by itself: `mpirun` where the start, a signal or an end by
    force is what a test is about.
    """
    if ranks > MOST_STANDING:
        return mpirun(ranks, *words, timeout=timeout, check=check)
    if ranks not in STANDING or not STANDING[ranks].ready:
        STANDING[ranks] = StandingRanks(LAUNCHER, ranks)
    return _checked(STANDING[ranks].run(*words, timeout=timeout), check)


def program(name: str, ranks: int, *words: object, timeout: float = 300, run: Run = mpirun) -> str:
    """Runs one of the programs beside this file; what it printed."""
    return run(ranks, "python", PROGRAMS / name, *words, timeout=timeout).stdout


def dismiss() -> None:
    """Ends all ranks that stand ready."""
    while STANDING:
        _, ranks = STANDING.popitem()
        if ranks.ready:
            ranks.close()


def _checked(
    done: subprocess.CompletedProcess[str], check: bool
) -> subprocess.CompletedProcess[str]:
    if check and done.returncode:
        command = " ".join(map(str, done.args))
        raise AssertionError(
            f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done
