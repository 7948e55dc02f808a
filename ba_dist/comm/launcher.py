"""This process's rank and the number of ranks, as MPI or the launcher tells them."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """This process's place among the ranks that were started together."""

    rank: int
    world_size: int


# Rank and number of ranks, as Open MPI, MPICH and its relatives (Intel, Cray under PALS), Slurm,
# Flux, IBM's jsrun and MVAPICH2 set them. A launcher that sets no number of ranks (PMIx alone)
# looks the same as no launcher.
_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
    ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)


def launched(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """The rank and world size that the launcher has set.

    None without a launcher, and under one that is not known here.

    Args:
        environment: of the process.
    """
    for rank, size in _VARIABLES:
        if rank in environment and size in environment:
            return Launch(int(environment[rank]), int(environment[size]))
    return None


def joined() -> Launch | None:
    """The rank and world size that MPI knows; None before MPI is started, or with one rank."""
    if "mpi4py.MPI" in sys.modules:
        from mpi4py import MPI

        if MPI.Is_initialized() and not MPI.Is_finalized() and MPI.COMM_WORLD.Get_size() > 1:
            return Launch(MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size())
    return None


def ranks() -> Launch | None:
    """The rank and world size: from MPI once it is started, before that from the launcher."""
    return joined() or launched()
