"""Ranks that meet, then wait for one of them that never comes: it ends with status 9.

Usage: failing.py RANK
"""

import os
import sys
import time

from mpi4py import MPI

world = MPI.COMM_WORLD
world.Barrier()
if world.rank == int(sys.argv[1]):
    print(f"failed {time.time()}", flush=True)
    os._exit(9)
world.Barrier()
