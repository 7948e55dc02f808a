"""Every rank says where it is and what came of an allreduce by MPI and one by Horovod."""

import socket

import horovod.tensorflow as hvd
import tensorflow as tf
from mpi4py import MPI

world = MPI.COMM_WORLD
hvd.init()
total = world.allreduce(world.rank + 1)
mean = float(hvd.allreduce(tf.constant([world.rank + 1.0]), name="ranks")[0])
place = f"rank {world.rank} of {hvd.size()} on {socket.gethostname()}"
print(f"{place}: mpi {total}, horovod {mean}", flush=True)
hvd.shutdown()
