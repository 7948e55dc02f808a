"""MPI and Horovod: the only room that imports mpi4py and horovod."""

from ba_dist.comm.channel import ByNode, Channel
from ba_dist.comm.installed import horovod_build, library
from ba_dist.comm.launcher import Launch, joined, launched, ranks
from ba_dist.comm.leaving import end_job, leave_together
from ba_dist.comm.shared_memory import Bytes, SharedMemory
from ba_dist.comm.world import Comm, start

__all__ = [
    "ByNode",
    "Bytes",
    "Channel",
    "Comm",
    "Launch",
    "SharedMemory",
    "end_job",
    "horovod_build",
    "joined",
    "launched",
    "leave_together",
    "library",
    "ranks",
    "start",
]
