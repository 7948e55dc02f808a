"""Starts programs on several ranks, by the launcher that users have."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "launch" / "mpirun.sh"
PROGRAMS = Path(__file__).parent / "programs"
WORLD_SIZES = (1, 2, 3, 4, 6)


def mpirun(
    ranks: int, *words: object, timeout: float = 300, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs `ba-dist WORDS` (or `python WORDS…`) on so many ranks; its output is in the result."""
    command = [str(LAUNCHER), "-n", str(ranks), "--", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done


def program(name: str, ranks: int, *words: object, timeout: float = 300) -> str:
    """Runs one of the programs beside this file; what it printed."""
    return mpirun(ranks, "python", PROGRAMS / name, *words, timeout=timeout).stdout
