"""The last rank fails as KIND says, while the others wait in a collective.

main, thread, together: in a program of its own. alone, interrupted: in a command of `ba-dist`; if
`unknown` follows, its launcher sets no variable that is known.
"""

import os
import sys
import threading

from ba_dist import cli
from ba_dist.comm import start
from ba_dist.errors import DataError

kind = sys.argv[1]
comm = start()
last = comm.rank == comm.world_size - 1
if sys.argv[2:] == ["unknown"]:
    for name in list(os.environ):
        if name.startswith(("OMPI_", "PMI", "PRTE", "SLURM_")):
            del os.environ[name]


def fail() -> None:
    raise ValueError(f"spoilt by rank {comm.rank}")


def broken_data() -> None:
    if last:
        raise DataError("file x is damaged")


@cli.cli.command("fail")
def command() -> None:
    other = comm.world.duplicate()
    if kind == "interrupted" and last:
        # A reader is inside MPI, where Python cannot reach it.
        threading.Thread(target=other.barrier, daemon=True).start()
        raise KeyboardInterrupt
    broken_data()
    comm.world.barrier()


if kind in ("alone", "interrupted"):
    sys.argv = ["ba-dist", "fail"]
    cli.main()
elif kind == "together":
    comm.together(broken_data)
elif last:
    if kind == "thread":
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        comm.world.barrier()
    fail()
comm.world.barrier()
print("nobody should come here")
