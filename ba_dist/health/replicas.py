"""Whether all ranks hold the same weights: every rank updates its own, and nothing else compares.

Replicas drift apart when they start from other weights, when processors or builds of TensorFlow
round differently, or when memory fails. The loss still falls then, so only a digest can tell.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ba_dist.comm import Comm
from ba_dist.errors import UserError, agreed


def digest(state: Mapping[str, Any]) -> str:
    """SHA-256 of the names and bytes of all variables, as 64 hexadecimal digits.

    Args:
        state: name → variable.
    """
    found = hashlib.sha256()
    for name, variable in sorted(state.items()):
        value = np.asarray(variable.numpy(), order="C")
        found.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        found.update(value.data)
    return found.hexdigest()


def spread(state: Mapping[str, Any], comm: Comm) -> None:
    """Sets all variables to those of rank 0; collective over the world."""
    for _, variable in sorted(state.items()):
        # A copy: what numpy() gives may be the variable's own memory.
        variable.assign(comm.world.broadcast(np.array(variable.numpy(), order="C")))


def agree(state: Mapping[str, Any], comm: Comm, step: int) -> str:
    """Compares the digests of all ranks; collective over the world.

    By a message of its own, of eight bytes: the step's one message is sent before the update whose
    outcome a checkpoint holds.

    Args:
        state: name → variable.
        comm: the world.
        step: steps that are done.

    Returns:
        The digest.

    Raises:
        UserError: on all ranks, naming those that differ from most.
    """
    mine = digest(state)
    found = comm.world.gather_all(np.array([int(mine[:16], 16)], np.uint64))[:, 0].tolist()
    if len(set(found)) > 1:
        raise agreed(UserError(describe(found, comm.hosts, step)))
    return mine


def describe(digests: list[int], hosts: list[str], step: int) -> str:
    """Which ranks hold other weights, and what a person can do.

    Args:
        digests: of all ranks.
        hosts: of all ranks.
        step: steps that are done.
    """
    usual, count = Counter(digests).most_common(1)[0]
    odd = [rank for rank, found in enumerate(digests) if found != usual]
    told = f"not those of the other {count}"
    if 2 * count <= len(digests):
        odd, told = list(range(len(digests))), "all in doubt, for no more than half of them agree"
    names = [f"rank {rank} on {hosts[rank]}" for rank in odd[:8]]
    names += [f"and {len(odd) - 8} more"] * (len(odd) > 8)
    return (
        f"after step {step} the ranks hold different weights: {', '.join(names)} ({told})."
        " The same command goes on from the last checkpoint, which is from before. Look for"
        " other processors, another build of TensorFlow or failing memory: on the same mixture it"
        " will end here again"
    )
