"""Processes that benchmarks start, and a barrier that leaves the cores to others."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from harness import MPIRUN

from ba_dist.comm import Comm
from ba_dist.errors import UserError


def run_ranks(ranks: int, words: Sequence[str], tracer: Sequence[str] = ()) -> str:
    """Starts a program on so many ranks by launch/mpirun.sh and returns what it printed.

    Args:
        ranks: how many.
        words: what follows `python`.
        tracer: a command to run all of it under, such as strace with its options.

    Raises:
        UserError: with the end of its output, when it failed.
    """
    guard = [sys.executable, "-IS", str(MPIRUN.with_name("end_with_parent.py")), "TERM"]
    line = [*guard, *tracer, str(MPIRUN), "-n", str(ranks), "--", "python", *words]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise UserError(f"{ranks} ranks of {words[0]} ended with status {done.returncode}:\n{end}")
    return done.stdout


def patient_barrier() -> None:
    """Returns when every rank has called it; meanwhile it leaves the cores to the others.

    MPI's own barrier spins. With fewer cores than ranks, that slows down the ranks that still work.
    """
    from mpi4py import MPI

    request = MPI.COMM_WORLD.Ibarrier()
    while not request.Test():
        time.sleep(0.001)


def my_threads(comm: Comm) -> int:
    """Threads of this rank: as the launcher sets them, else one for each of its cores."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or comm.cores)


class Helper:
    """A helper process; questions and answers are lines of JSON.

    It inherits no variables of the MPI job, so that its libraries do not act as a rank.

    Args:
        command: to start it.
        extra: environment variables to add.
        all_cores: it may use all cores of the machine, not only those of this rank.
    """

    def __init__(self, command: Sequence[str], extra: dict[str, str], all_cores: bool = False):
        hidden = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "MPI_")
        kept = {name: v for name, v in os.environ.items() if not name.startswith(hidden)}
        mine = os.sched_getaffinity(0)
        if all_cores:
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**kept, **extra},
            )
        finally:
            os.sched_setaffinity(0, mine)

    def ask(self, question: Any) -> Any:
        """Sends an object and returns the answer.

        Raises:
            UserError: when the process has ended.
        """
        assert self._child.stdin and self._child.stdout
        try:
            self._child.stdin.write(json.dumps(question) + "\n")
            self._child.stdin.flush()
            answer = self._child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise UserError(f"{' '.join(self._child.args[1:3])} has ended; its reason is above")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process by closing its input."""
        assert self._child.stdin
        self._child.stdin.close()
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
