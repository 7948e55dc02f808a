"""Last step of `make setup`: import what was installed, with one MPI library for all of it.

mpi4py comes first, as in ba_dist; its search for the library is what has to be right.
"""

import re
import sys
from pathlib import Path

import mpi4py

# A login node may forbid MPI_Init; loading the library is check enough.
mpi4py.rc.initialize = False

from mpi4py import MPI  # noqa: E402, I001

import array_record.python.array_record_module  # noqa: E402, F401
import tensorflow as tf  # noqa: E402
import tensorflow_datasets  # noqa: E402, F401

MPI_LIBRARY = re.compile(r"/libmpi(ch|_(gnu|cray|intel|amd|aocc|nvidia)[_0-9]*)?\.so[.0-9]*$")


def loaded_mpi_libraries():
    """Files of every MPI library in this process."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in maps if line.count("/")}
    return sorted(path for path in paths if MPI_LIBRARY.search(path))


# Not at the top, as all imports here: mpi4py has to be told not to start MPI first. ba_dist says in
# words when Horovod is of another TensorFlow.
from ba_dist.comm.installed import import_horovod  # noqa: E402
from ba_dist.errors import UserError  # noqa: E402

try:
    hvd = import_horovod()
except UserError as error:
    sys.exit(f"{error}")

if not hvd.mpi_built():
    sys.exit("Horovod was built without MPI")
if len(loaded_mpi_libraries()) > 1:
    sys.exit(f"mpi4py and Horovod load different MPI libraries: {loaded_mpi_libraries()}")
print("TensorFlow", tf.__version__, "with", MPI.Get_library_version().splitlines()[0])
print("MPI library:", *loaded_mpi_libraries())
