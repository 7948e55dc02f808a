"""MPI and Horovod: the only room that imports mpi4py and horovod."""

from ba_dist.comm.launcher import Launch, launched
from ba_dist.comm.shared_memory import Bytes, SharedMemory
from ba_dist.comm.world import (
    LARGEST_MESSAGE,
    Channel,
    Comm,
    end_job,
    horovod_build,
    joined,
    leave_together,
    library,
    ranks,
    start,
)

__all__ = [
    "LARGEST_MESSAGE",
    "Channel",
    "Comm",
    "start",
    "joined",
    "ranks",
    "leave_together",
    "end_job",
    "library",
    "horovod_build",
    "Launch",
    "launched",
    "Bytes",
    "SharedMemory",
]
