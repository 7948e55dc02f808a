"""Which MPI and which Horovod this environment has."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from ba_dist.errors import UserError


def library() -> tuple[str, int]:
    """Name and version of the MPI library, and the thread level that it gives (3 is multiple)."""
    from mpi4py import MPI

    return MPI.Get_library_version().split(",")[0].strip("\0\n "), MPI.Query_thread()


def horovod_build() -> dict[str, Any]:
    """The version of Horovod, and whether it was built with `MPI`, `NCCL` and `Gloo`."""
    for_tensorflow = import_horovod()
    import horovod

    return {
        "version": horovod.__version__,
        "MPI": bool(for_tensorflow.mpi_built()),
        "NCCL": bool(for_tensorflow.nccl_built()),
        "Gloo": bool(for_tensorflow.gloo_built()),
    }


def import_horovod() -> Any:
    """The module `horovod.tensorflow`.

    Raises:
        ImportError: when there is no Horovod.
        UserError: when it was built for another TensorFlow. Its import would only name a symbol
            that is missing.
    """
    import tensorflow as tf

    found = importlib.util.find_spec("horovod")
    told = Path(found.origin).parent / "metadata.json" if found and found.origin else None
    if told and told.is_file():
        version = json.loads(told.read_text(encoding="utf-8")).get("tensorflow", tf.__version__)
        if version != tf.__version__:
            raise UserError(
                f"Horovod was built for TensorFlow {version}, and this is {tf.__version__}; build"
                " it again: `make setup` in a clone, else docs/install.md"
            )
    import horovod.tensorflow as horovod

    return horovod
