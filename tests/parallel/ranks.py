"""Runs programs on several ranks, which the launcher starts that users have."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.parallel.template import Template

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "launch" / "mpirun.sh"
PROGRAMS = Path(__file__).parent / "programs"
WORLD_SIZES = (1, 2, 3, 4, 6)
# As parameters of a test; the largest ones are of `make test-wide`, as are networks of texts.
WIDE = pytest.mark.wide
WORLDS = (1, 2, 3, 4, pytest.param(6, marks=WIDE))
TEMPLATE: list[Template] = []

Run = Callable[..., subprocess.CompletedProcess[str]]


def mpirun(
    ranks: int, *words: object, timeout: float = 300, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Starts `ba-dist WORDS` (or `python WORDS…`) on so many ranks; its output is in the result."""
    command = [str(LAUNCHER), "-n", str(ranks), "--", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done


def hydra() -> bool:
    """Whether Hydra starts ranks: by open files, which the children of a template do not have."""
    made_for = ROOT / ".venv" / ".setup-base"  # its sixth line names the MPI: launch/setup.sh
    lines = made_for.read_text().splitlines() if made_for.exists() else []
    return len(lines) > 5 and lines[5].startswith(("mpich ", "intel ", "mvapich "))


def warm(
    ranks: int, *words: object, timeout: float = 300, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """As mpirun, but each rank has TensorFlow loaded already.

    For programs that need it and end by themselves: `mpirun` where the start, a signal or an end by
    force is what a test is about.
    """
    if hydra():
        return mpirun(ranks, *words, timeout=timeout, check=check)
    if not TEMPLATE:
        TEMPLATE.append(Template())
    return mpirun(ranks, *TEMPLATE[0].words(*words), timeout=timeout, check=check)


def program(name: str, ranks: int, *words: object, timeout: float = 300, run: Run = mpirun) -> str:
    """Runs one of the programs beside this file; what it printed."""
    return run(ranks, "python", PROGRAMS / name, *words, timeout=timeout).stdout
