"""Storage is measured with a number of files that on rank 1 is none."""

import sys
from pathlib import Path

from ba_dist.calibration.storage import storage
from ba_dist.comm import start

comm = start()
storage(comm, Path(sys.argv[1]), 8 if comm.rank == 0 else None, 4)
