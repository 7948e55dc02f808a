"""How a rank ends: together with all others, or alone, and then it ends the job."""

import os
import socket
import sys
from typing import NoReturn, TextIO

from ba_dist.comm.launcher import ranks


def leave_together(message: str, status: int, stream: TextIO | None = None) -> NoReturn:
    """Ends every rank with this status, after rank 0 has printed the message; collective.

    Ranks wait for each other: when one ends first, the launcher may kill rank 0 before it prints.
    """
    launch = ranks()
    if launch is None or launch.rank == 0:
        print(message, file=stream or sys.stderr, flush=True)
    if launch is not None and launch.world_size > 1:
        from mpi4py import MPI

        MPI.COMM_WORLD.Barrier()
    sys.exit(status)


def end_job(message: str, status: int) -> NoReturn:
    """Prints a message and ends the job on all ranks; for a failure of this rank alone."""
    from mpi4py import MPI

    rank, host = MPI.COMM_WORLD.Get_rank(), socket.gethostname()
    print(f"ba-dist: rank {rank} on {host}: {message}", file=sys.stderr, flush=True)
    # Nothing collective here: the other ranks would not take part.
    MPI.COMM_WORLD.Abort(status)
    os._exit(status)
