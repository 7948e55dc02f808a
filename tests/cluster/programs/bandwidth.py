"""Rank 0 sends 20 megabytes to rank 1 and says how many a second went."""

import time

import numpy as np
from mpi4py import MPI

world = MPI.COMM_WORLD
buffer = np.zeros(20_000_000, np.uint8)
world.Barrier()
start = time.monotonic()
if world.rank == 0:
    world.Send(buffer, 1)
else:
    world.Recv(buffer, 0)
world.Barrier()
if world.rank == 0:
    print(20 / (time.monotonic() - start))
