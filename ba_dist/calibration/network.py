"""Latency and bandwidth between ranks: single messages, and the allreduce that training has."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ba_dist.comm import Comm
from ba_dist.planner import collectives
from ba_dist.planner.machine import Network

_SMALL, _LARGE = 8, 2**22
_ROUNDS = 5
SUMMED = (1, 2**21)  # numbers of four bytes
_TURNS, _LATENCIES, _SECONDS_A_BYTE = 5, (1e-12, 1e3), (1e-14, 1.0)


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
    """Seconds that Horovod takes to sum one number, and 8 MB of them, over all ranks; collective.

    Training sums by it, and adding up and copying are in it, which single messages have not.
    """
    import tensorflow as tf

    taken = []
    for number, floats in enumerate(SUMMED):
        tensor, rounds = tf.ones(floats), []
        for _ in range(_ROUNDS + 1):
            comm.world.barrier()
            begun = time.perf_counter()
            comm.allreduce(tensor, name=f"calibrate{number}").numpy()
            rounds.append(time.perf_counter() - begun)
        taken.append(float(comm.world.gather_all(np.array(rounds[1:])).max(axis=0).min()))
    return taken[0], taken[1]


def fitted(taken: tuple[float, float], nodes: int, ranks: int, single: Network) -> Network:
    """The network on which a plan's allreduce takes what Horovod's has taken.

    The latency follows from the small sum and the bandwidth from the large one: of what is between
    nodes where there are several, and then what is inside stays as single messages have it; else of
    what is inside. Where the inside alone explains all that was taken, the bandwidth stays.

    Args:
        taken: by `allreduce`.
        nodes: N.
        ranks: ranks a node, L.
        single: as single messages have it.
    """
    kind = "" if nodes > 1 else "inside_"
    made = replace(single, **{f"{kind}latency": 0.0})

    def seconds(floats: int, **values: float) -> float:
        changed = replace(made, **{kind + name: value for name, value in values.items()})
        return collectives.allreduce("best", 4 * floats, nodes, ranks, changed)

    # Each of the two hardly changes the other's sum, so a few turns find both.
    for _ in range(_TURNS):
        late = _solved(lambda x: seconds(SUMMED[0], latency=x), taken[0], *_LATENCIES)
        made = replace(made, **{f"{kind}latency": late})
        slow = _solved(lambda x: seconds(SUMMED[1], bandwidth=1 / x), taken[1], *_SECONDS_A_BYTE)
        if slow > 2 * _SECONDS_A_BYTE[0]:
            made = replace(made, **{f"{kind}bandwidth": 1 / slow})
    return made


def _solved(rising: Callable[[float], float], wanted: float, low: float, high: float) -> float:
    """The x from low to high at which a function that rises has this value, by halving."""
    for _ in range(100):
        middle = math.sqrt(low * high)
        if rising(middle) < wanted:
            low = middle
        else:
            high = middle
    return high
