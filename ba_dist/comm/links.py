"""How fast the links between ranks are."""

import numpy as np
import numpy.typing as npt

from ba_dist.comm.channel import Channel

_ROUNDS = 2


def link_seconds(world: Channel, size: int) -> npt.NDArray[np.float64]:
    """Measures each link alone, twice, and takes the faster time; collective over the world.

    Args:
        world: all ranks.
        size: bytes that are sent over each link.

    Returns:
        float64 [W], seconds from each rank to the next one.
    """
    mine, buffer = np.inf, np.zeros(size, np.uint8)
    ranks, rank = world.size, world.rank
    # No rank may send and receive at a time. So the even ranks send first, then the odd ones; the
    # last rank of an odd world is even, as rank 0 behind it is, and sends alone.
    phase_of = [2 if ranks % 2 and r == ranks - 1 else r % 2 for r in range(ranks)]
    for phase in (0, 1, 2) * _ROUNDS:
        world.barrier()
        if phase_of[rank] == phase:
            mine = min(mine, world.send_and_time(buffer, (rank + 1) % ranks))
        elif phase_of[rank - 1] == phase:
            world.receive_timed(buffer, (rank - 1) % ranks)
    return world.gather_all(np.array(mine))
