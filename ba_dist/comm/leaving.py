"""How a rank ends: together with all others, or alone, and then it ends the job."""

import fcntl
import os
import socket
import stat
import sys
import termios
import time
from contextlib import suppress
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
    abort(status)


def abort(status: int) -> NoReturn:
    """Ends the job now, wherever the other ranks are, once what this one has said has been read.

    MPICH's launcher hears of the end by another way than of messages, and drops those that it has
    not read by then.
    """
    from mpi4py import MPI

    for stream in (sys.stdout, sys.stderr):
        _deliver(stream)
    # Nothing collective here: the other ranks would not take part.
    MPI.COMM_WORLD.Abort(status)
    os._exit(status)


def _deliver(stream: TextIO, seconds: float = 1.0) -> None:
    """Writes what is left, and waits until a pipe is empty; a file or terminal loses nothing."""
    deadline = time.monotonic() + seconds
    with suppress(OSError, ValueError):  # closed, full, or no stream of the system
        stream.flush()
        pipe = stream.fileno()
        while stat.S_ISFIFO(os.fstat(pipe).st_mode) and time.monotonic() < deadline:
            unread = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
            if not any(unread):
                return
            time.sleep(0.001)
