"""State that differs from rank to rank, on its way into a checkpoint and out of it again.

Some layers keep a row for each instance: an LSTM that goes on with a sequence where the step before
ended. A checkpoint holds such an array as [M·B, …], copy by copy in the order of the batch, so that
a run can go on with other ranks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ba_dist.comm import Channel
from ba_dist.rules.layout import Layout
from ba_dist.run.checkpoint import Arrays


def gather(variables: Mapping[str, Any], layout: Layout, world: Channel) -> Arrays:
    """Every rank's rows in one array each; collective over the world.

    Args:
        variables: name → variable [b·K, …] of this rank.
        layout: of the ranks.
        world: all ranks.

    Returns:
        Name → array [M·B, …].
    """
    found = {}
    for name, variable in sorted(variables.items()):
        parts = world.gather_all(np.array(variable.numpy()))
        whole = np.empty((layout.multiplicity * layout.batch_size, *parts.shape[2:]), parts.dtype)
        for rank, part in enumerate(parts):
            whole[layout.rows(rank)] = part
        found[name] = whole
    return found


def take(arrays: Arrays, variables: Mapping[str, Any], layout: Layout, rank: int) -> Arrays:
    """This rank's rows of what `gather` has made; a name that is missing stays missing."""
    rows = layout.rows(rank)
    return {name: arrays[name][rows] for name in variables if name in arrays}
