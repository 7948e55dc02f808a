"""How a rank ends: together with all others, or alone, and then it ends the job."""

import os
import socket
import sys
from typing import NoReturn, TextIO

from ba_dist.comm.launcher import ranks


def leave_together(message: str, status: int, stream: TextIO | None = None) -> NoReturn:
    """Every rank ends with this status, after rank 0 has printed the message once.

    A rank that left at once would have the launcher kill rank 0 before it has spoken.
    """
    launch = ranks()
    if launch is None or launch.rank == 0:
        print(message, file=stream or sys.stderr, flush=True)
    if launch is not None and launch.world_size > 1:
        from mpi4py import MPI

        MPI.COMM_WORLD.Barrier()
    sys.exit(status)


def end_job(message: str, status: int) -> NoReturn:
    """This rank alone has failed: it says so, and ends the job on all ranks, wherever they are."""
    from mpi4py import MPI

    rank, host = MPI.COMM_WORLD.Get_rank(), socket.gethostname()
    print(f"ba-dist: rank {rank} on {host}: {message}", file=sys.stderr, flush=True)
    # Nothing collective here: the others are somewhere else.
    MPI.COMM_WORLD.Abort(status)
    os._exit(status)
