"""Exchanges pieces of many sizes and checks each; prints how many turns went by which way.

ROOM or FULL: whether there is room for shared memory.
"""

import sys

import numpy as np

from ba_dist.comm import channel as comm_channel
from ba_dist.comm import start
from ba_dist.data.group import exchange
from ba_dist.rules.layout import Layout

SLOTS, TURNS = 3, 40

if sys.argv[1] == "FULL":
    comm_channel.measure = lambda: (0, 2**30)

comm = start()
channel = comm.group(Layout(comm.world_size, comm.world_size, 8))
carrier = exchange.Exchange(channel, SLOTS)


def fill(turn):
    """Fills a slot with this rank's pieces; every lane knows what all give: 0 to 4 pieces."""
    slot = carrier.begin()
    plan = np.random.default_rng(turn)
    counts = plan.integers(0, 5, comm.world_size)
    counts[plan.integers(comm.world_size)] = 1
    # They become larger as the turns go on.
    sizes = [plan.integers(0, 200 * (turn + 1) ** 2, count) for count in counts]
    contents = [[plan.integers(0, 256, size, np.uint8) for size in lane] for lane in sizes]
    mine = [slot.allocate(len(content)) for content in contents[comm.rank]]
    for memory, content in zip(mine, contents[comm.rank], strict=True):
        memory[:] = content
    return slot, mine, counts, [content for lane in contents for content in lane]


kept = []
shared = 0
ahead = fill(0)
for turn in range(TURNS):
    (slot, mine, counts, expected), ahead = ahead, fill(turn + 1)
    facts = np.array([[turn, i] for i in range(len(mine))], np.int64).reshape(-1, 2)
    pieces, all_facts = carrier.gather(slot, mine, facts, counts.tolist())
    assert all_facts.tolist() == [[turn, i] for count in counts for i in range(count)]
    assert len(pieces) == len(expected)
    kept.append((pieces, expected))
    # What was gathered stays until its slot is filled again, also when slots have grown.
    for old_pieces, old_expected in kept[1 - SLOTS :]:
        for piece, content in zip(old_pieces, old_expected, strict=True):
            assert np.array_equal(piece, content)
    channel.barrier()
    shared += carrier.shared
kept.clear()
pieces = piece = old_pieces = mine = ahead = slot = None
carrier.close()
if comm.rank == 0:
    print(shared)
