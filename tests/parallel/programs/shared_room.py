"""Asks for more memory to share than /dev/shm has, in the way KIND says: bytes, parts or twice."""

import sys

from ba_dist.comm import start
from ba_dist.errors import UserError

kind = sys.argv[1]
comm = start()
node = comm.node
try:
    if kind == "parts":
        node.shared_memory(40 * 2**20)
    elif kind == "bytes":
        node.shared_bytes(80 * 2**20)
    else:  # the first one fits, the second one only as long as nobody has written to the first
        for part in [node.shared_bytes(40 * 2**20) for _ in range(2)]:
            part[comm.rank :: comm.world_size] = 1
except UserError as error:
    told = node.gather_objects((f"{error}", error.agreed))
    assert told == told[:1] * node.size
    # What there is can still be shared.
    small = node.shared_bytes(2**20)
    small[comm.rank] = comm.rank + 1
    node.barrier()
    assert small[: node.size].tolist() == list(range(1, node.size + 1))
    node.barrier()
    if comm.rank == 0:
        print(*told[0])
else:
    print("there was room")
