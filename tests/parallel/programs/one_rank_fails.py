"""The last rank fails as KIND says, while the others wait in a collective."""

import sys
import threading

from ba_dist.comm import start
from ba_dist.errors import DataError

kind = sys.argv[1]
comm = start()


def fail() -> None:
    raise ValueError(f"spoilt by rank {comm.rank}")


def broken_data() -> None:
    if comm.rank == comm.world_size - 1:
        raise DataError("file x is damaged")


if kind == "together":
    comm.together(broken_data)
elif comm.rank == comm.world_size - 1:
    if kind == "thread":
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        comm.world.barrier()
    fail()
comm.world.barrier()
print("nobody should come here")
