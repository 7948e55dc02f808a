"""What the program that starts the ranks tells them, before MPI does."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """This process's place among the ranks that were started together."""

    rank: int
    world_size: int


# Rank and number of ranks: by Open MPI, MPICH and its kin (Intel, Cray under PALS), Slurm, Flux,
# IBM's jsrun, MVAPICH2. A launcher that gives no number (PMIx alone) cannot be told from none.
_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
    ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)


def launched() -> Launch | None:
    """The rank and world size by which an MPI launcher started this process.

    None without one, and under one that is not known: `comm.ranks` asks MPI, too.
    """
    for rank, size in _VARIABLES:
        if rank in os.environ and size in os.environ:
            return Launch(int(os.environ[rank]), int(os.environ[size]))
    return None
