"""Latency and bandwidth between ranks: single messages, and the allreduce that training has."""

import math
import time

import numpy as np

from ba_dist.comm import Comm

_SMALL, _LARGE, _FLOATS = 8, 2**22, 2**21
_ROUNDS = 5


def links(comm: Comm) -> dict[str, tuple[float, float]]:
    """`inside` and `between` → (seconds before the first byte, bytes a second) of single messages.

    The median of the links from each rank to the next one, with that of the same host or of
    another; a kind of which there is no link is missing. Collective.
    """
    if comm.world_size == 1:
        return {}
    small, large = comm.link_seconds(_SMALL), comm.link_seconds(_LARGE)
    hosts = comm.hosts
    inside = np.array([hosts[r] == hosts[(r + 1) % len(hosts)] for r in range(len(hosts))])
    found = {}
    for kind, which in (("inside", inside), ("between", ~inside)):
        if which.any():
            # A message is answered, so that its sender knows: twice the latency.
            latency = float(np.median(small[which])) / 2
            rest = max(1e-9, float(np.median(large[which] - small[which])))
            found[kind] = latency, (_LARGE - _SMALL) / rest
    return found


def allreduce(comm: Comm) -> tuple[float, float]:
    """(α, β) with which 2⌈log₂ W⌉·α + 2(W-1)/W · V/β is what Horovod takes; collective.

    Training sums by it, and adding up and copying are in it, which single messages have not.
    """
    import tensorflow as tf

    world = comm.world_size
    taken = []
    for number, floats in enumerate((1, _FLOATS)):
        tensor, rounds = tf.ones(floats), []
        for turn in range(_ROUNDS + 1):
            comm.world.barrier()
            begun = time.perf_counter()
            comm.allreduce(tensor, name=f"calibrate{number}").numpy()
            rounds.append(time.perf_counter() - begun)
            del turn
        taken.append(float(comm.world.gather_all(np.array(rounds[1:])).max(axis=0).min()))
    volume = 2 * (world - 1) / world * 4 * (_FLOATS - 1)
    return taken[0] / (2 * math.ceil(math.log2(world))), volume / max(1e-9, taken[1] - taken[0])
