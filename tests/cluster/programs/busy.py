"""Ranks that meet in one allreduce after another until something ends them."""

import itertools
import time

from mpi4py import MPI

for number in itertools.count():
    MPI.COMM_WORLD.allreduce(number)
    if MPI.COMM_WORLD.rank == 0:
        print(f"round {number}", flush=True)
    time.sleep(0.2)
