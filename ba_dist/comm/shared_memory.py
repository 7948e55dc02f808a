"""Memory that the ranks of a node share, and whether there is room for it.

MPI libraries on Linux keep it in /dev/shm, which often has 64 MB in a container. A page is taken
when it is first written. A process that writes when no page is left dies of SIGBUS.
"""

import os
import shutil
import socket
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_FOLDER = "/dev/shm"
_VARIABLE = "OMPI_MCA_osc_sm_backing_directory"  # names another folder for Open MPI
_UNKNOWN = (2**62, 2**62)


def folder() -> str:
    """The folder that holds shared memory."""
    return os.environ.get(_VARIABLE, _FOLDER)


def measure() -> tuple[int, int]:
    """(free, total) bytes; more than anybody needs where they cannot be found out."""
    try:
        usage = shutil.disk_usage(folder())
    except OSError:
        return _UNKNOWN
    return usage.free, usage.total


def lack(needed: int, free: int, total: int) -> str:
    """What to do when more shared memory is needed than is free; empty where there is enough.

    Args:
        needed: bytes that the ranks of this node want to share.
        free: bytes that are left.
        total: bytes of the whole folder.
    """
    if needed <= free:
        return ""
    enough = -(-(total - free + needed) // 2**30)
    return (
        f"the ranks on {socket.gethostname()} have to share {_mb(needed)} of memory, but"
        f" {folder()} has {_mb(free)} free of {_mb(total)}. Make it larger: of a container by"
        f" `docker run --shm-size={enough}g …`, of a machine by `mount -o remount,size={enough}g"
        f" {folder()}`, of a cluster by asking its site; for Open MPI {_VARIABLE}=DIR names another"
        " folder, on a local disk"
    )


def _mb(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


# --- windows --------------------------------------------------------------------------------------


def view(window: Any, rank: int, size: int) -> Bytes:
    """The `size` bytes that a rank has given to a shared window of MPI."""
    memory: Any = window.Shared_query(rank)[0]
    return np.frombuffer(memory, np.uint8, count=size)


class SharedMemory:
    """Memory of which each rank of a channel gives a part; all ranks can read and write all parts.

    Args:
        window: of MPI, shared and locked.
        size: bytes of each rank's part.
        ranks: number of ranks.
    """

    def __init__(self, window: Any, size: int, ranks: int):
        self._window = window
        self.size = size
        self.parts: list[Bytes] = [view(window, rank, size) for rank in range(ranks)]

    def sync(self) -> None:
        """Makes this rank's writes visible to others, and theirs to it.

        The writer calls it, then sends a message, and the reader calls it after the message.
        """
        self._window.Sync()

    def free(self) -> None:
        """Gives the memory back; collective. `parts` may not be used any more."""
        self.parts = []
        self._window.Unlock_all()
        self._window.Free()
