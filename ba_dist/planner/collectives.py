"""Seconds of messages between ranks: latency α, bandwidth β, V bytes, W ranks.

    ring            2(W-1)·α + 2(W-1)/W · V/β
    tree            2⌈log₂ W⌉ · (α + V/β)
    rabenseifner    2⌈log₂ W⌉ · α + 2(W-1)/W · V/β
    hierarchical    ring inside of the nodes, rabenseifner between them on each rank's part

Sources: Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of
workstations" (ring); Thakur, Rabenseifner and Gropp 2005, "Optimization of collective communication
operations in MPICH" (the others, and the broadcast).
"""

import math

from ba_dist.planner.machine import Network

BACKWARD = 2 / 3  # share of computing that is the backward pass: two of three matrix products


def allreduce(algorithm: str, size: float, nodes: int, ranks: int, network: Network) -> float:
    """Seconds of one allreduce over all ranks.

    Args:
        algorithm: one of `machine.ALLREDUCES`.
        size: bytes V.
        nodes: N.
        ranks: ranks a node, L.
        network: α and β inside and between nodes.
    """
    if nodes * ranks == 1:
        return 0.0
    ways = {
        "ring": _flat_ring(size, nodes, ranks, network),
        "tree": _tree(size, nodes, ranks, network),
        "rabenseifner": _rabenseifner(size, nodes, ranks, network),
        "hierarchical": _hierarchical(size, nodes, ranks, network),
    }
    return min(ways.values()) if algorithm == "best" else ways[algorithm]


def _flat_ring(size: float, nodes: int, ranks: int, network: Network) -> float:
    """All ranks in one ring, node by node: each node's link carries one flow in and one out."""
    if nodes == 1:
        return ring(size, ranks, network.inside_latency, network.inside_bandwidth)
    latency = max(network.latency, network.inside_latency)
    return ring(size, nodes * ranks, latency, min(network.bandwidth, network.inside_bandwidth))


def _tree(size: float, nodes: int, ranks: int, network: Network) -> float:
    inside = 2 * _levels(ranks) * (network.inside_latency + size / network.inside_bandwidth)
    return inside + 2 * _levels(nodes) * (network.latency + size / network.bandwidth)


def _rabenseifner(size: float, nodes: int, ranks: int, network: Network) -> float:
    """Halving and doubling; all ranks of a node send at a time, so they share its link."""
    if nodes == 1:
        return _halving(size, ranks, network.inside_latency, network.inside_bandwidth)
    inside = 2 * _levels(ranks) * network.inside_latency
    world = nodes * ranks
    # The first halves go between nodes; what stays inside is small, and its bandwidth large.
    return (
        inside
        + 2 * _levels(nodes) * network.latency
        + (2 * (world - 1) / world * size * ranks / network.bandwidth)
    )


def _hierarchical(size: float, nodes: int, ranks: int, network: Network) -> float:
    """Reduce-scatter inside, allreduce of the L parts side by side between, allgather inside."""
    inside = ring(size, ranks, network.inside_latency, network.inside_bandwidth)
    return inside + _halving(size, nodes, network.latency, network.bandwidth)


def ring(size: float, ranks: int, latency: float, bandwidth: float) -> float:
    """2(W-1)·α + 2(W-1)/W · V/β."""
    return 2 * (ranks - 1) * latency + 2 * (ranks - 1) / ranks * size / bandwidth


def _halving(size: float, ranks: int, latency: float, bandwidth: float) -> float:
    return 2 * _levels(ranks) * latency + 2 * (ranks - 1) / ranks * size / bandwidth


def broadcast(size: float, ranks: int, latency: float, bandwidth: float) -> float:
    """The faster of a binomial tree and of scatter and allgather (van de Geijn)."""
    levels = _levels(ranks)
    tree = levels * (latency + size / bandwidth)
    return min(tree, (levels + ranks - 1) * latency + 2 * (ranks - 1) / ranks * size / bandwidth)


def allgather(size: float, ranks: int, latency: float, bandwidth: float) -> float:
    """A ring: each rank has a part of `size` bytes and gets all others."""
    return (ranks - 1) * latency + (ranks - 1) / ranks * size / bandwidth


def exposed(each: float, backward: float, buckets: int) -> float:
    """Seconds of sums that the backward pass does not hide.

    k buckets of equal size are ready one after the other, every s = backward / k seconds, and take
    c seconds each, one at a time, latency included. The last one ends

        c + (k-1) · max(0, c - s)

    after the backward pass; with one bucket nothing is hidden.

    Args:
        each: c, of the allreduce of one bucket.
        backward: of the backward pass that gives the buckets.
        buckets: k.
    """
    return each + (buckets - 1) * max(0.0, each - backward / buckets)


def link_seconds(size: float, nodes: int, network: Network) -> float:
    """Seconds for which an allreduce at its best keeps a node's link busy in one direction."""
    return 2 * (nodes - 1) / nodes * size / network.bandwidth if nodes > 1 else 0.0


def _levels(ranks: int) -> int:
    return math.ceil(math.log2(ranks)) if ranks > 1 else 0
