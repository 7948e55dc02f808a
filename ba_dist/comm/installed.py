"""Which MPI and which Horovod this environment has."""

from typing import Any


def library() -> tuple[str, int]:
    """Name and version of the MPI library, and the thread level that it gives (3 is multiple)."""
    from mpi4py import MPI

    return MPI.Get_library_version().split(",")[0].strip("\0\n "), MPI.Query_thread()


def horovod_build() -> dict[str, Any]:
    """The version of Horovod, and whether it was built with `MPI`, `NCCL` and `Gloo`."""
    import horovod
    import horovod.tensorflow as horovod_tensorflow

    return {
        "version": horovod.__version__,
        "MPI": bool(horovod_tensorflow.mpi_built()),
        "NCCL": bool(horovod_tensorflow.nccl_built()),
        "Gloo": bool(horovod_tensorflow.gloo_built()),
    }
