"""Sends arrays whole and in pieces of LARGEST bytes and compares; prints how many were compared."""

import sys

import numpy as np

from ba_dist.comm import channel as comm_channel
from ba_dist.comm import start

comm = start()
channel = comm.world
whole, comm_channel.LARGEST_MESSAGE = comm_channel.LARGEST_MESSAGE, int(sys.argv[1])
compared = 0


def arrays(draw):
    """Of every kind that is sent; the same on every rank for the same draw."""
    for size in (0, 1, 7, 8, 9, 1000):
        yield draw.integers(0, 256, size, np.uint8)
        yield draw.normal(size=(size, 3)).astype(np.float32)
    yield np.float64(draw.normal()).reshape(())
    yield draw.normal(size=(5, 4)) > 0


for root in range(comm.world_size):
    for expected in arrays(np.random.default_rng(root)):
        mine = expected.copy() if comm.rank == root else np.zeros_like(expected)
        sent = channel.bytes_sent
        assert channel.broadcast(mine, root) is mine
        assert np.array_equal(mine, expected)
        gave = expected.nbytes if comm.rank == root and comm.world_size > 1 else 0
        assert channel.bytes_sent == sent + gave
        compared += 1
for turn in range(20):
    draw = np.random.default_rng(turn)
    counts = draw.integers(0, 50, comm.world_size)
    counts[draw.integers(comm.world_size)] *= turn % 3 * 20
    parts = [draw.integers(0, 256, count, np.uint8) for count in counts]
    sent = channel.bytes_sent
    joined = channel.concatenate(parts[comm.rank], counts)
    assert np.array_equal(joined, np.concatenate(parts))
    gave = parts[comm.rank].nbytes if comm.world_size > 1 else 0
    assert channel.bytes_sent == sent + gave
    compared += 1
channel.barrier()
assert whole < 2**31
print(compared) if comm.rank == 0 else None
