"""What a filesystem gives: opening, one client, all together."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ba_dist.comm import Comm
from ba_dist.errors import UserError, reason

_RECORD = 114_700  # bytes of a JPEG of ImageNet in the mean


@dataclass(frozen=True)
class Seen:
    """Of files of the size of ImageNet's JPEGs.

    Args:
        latency: seconds from opening a file to its first byte.
        client: bytes a second that one rank of each node gets while the others wait.
        together: bytes a second of all ranks at a time.
        opens: files a second that all ranks open.
        cached: whether the page cache could not be emptied, so that memory was measured.
    """

    latency: float
    client: float
    together: float
    opens: float
    cached: bool


def storage(comm: Comm, folder: Path, files: int) -> Seen:
    """Writes files to a folder that all ranks see, reads them, and removes them; collective.

    A rank reads what the one after it has written, on another node where there is one. Pages are
    dropped from the cache of the node that wrote them.

    Args:
        comm: the ranks.
        folder: on the filesystem in question.
        files: that each rank writes.

    Raises:
        UserError: on all ranks, where one cannot write or read them.
    """
    mine = folder / f"ba_dist-calibrate-{comm.rank}"
    dropped = bool(comm.together(lambda: _write(mine, files)))
    try:
        comm.world.barrier()
        # A node's ranks lie side by side: the next node's files are a node's ranks further.
        other = (comm.rank + comm.node.size) % comm.world_size
        theirs = folder / f"ba_dist-calibrate-{other}"
        half = files // 2
        first = comm.together(lambda: _read(theirs, 0, half) if comm.node.rank == 0 else [])
        comm.world.barrier()
        begun = time.perf_counter()
        second = comm.together(lambda: _read(theirs, half, files))
        own = time.perf_counter() - begun
        latencies = np.array([at for at, _ in first] or [np.nan])
        client = half * _RECORD / sum(whole for _, whole in first) if first else np.nan
        facts = np.array([float(np.median(latencies)), client, own, float(not dropped)])
        ranks = comm.world.gather_all(facts)
    finally:
        comm.world.barrier()
        _remove(mine, files)
    slowest, read = float(ranks[:, 2].max()), len(second) * comm.world_size
    return Seen(
        latency=float(np.nanmedian(ranks[:, 0])),
        client=float(np.nanmedian(ranks[:, 1])),
        together=read * _RECORD / slowest,
        opens=read / slowest,
        cached=bool(ranks[:, 3].any()),
    )


def _write(folder: Path, files: int) -> bool:
    """Whether the pages are gone from the cache afterwards, as far as the system tells."""
    content = np.random.default_rng(0).bytes(_RECORD)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(files):
            with (folder / f"{number}").open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise UserError(f"--storage {folder.parent} cannot be written: {reason(error)}") from None
    return hasattr(os, "posix_fadvise")


def _read(folder: Path, first: int, last: int) -> list[tuple[float, float]]:
    """(seconds to the first byte, seconds of all) of each file."""
    found = []
    try:
        for number in range(first, last):
            begun = time.perf_counter()
            descriptor = os.open(folder / f"{number}", os.O_RDONLY)
            try:
                os.pread(descriptor, 1, 0)
                opened = time.perf_counter()
                while os.read(descriptor, 2**20):
                    pass
            finally:
                os.close(descriptor)
            found.append((opened - begun, time.perf_counter() - begun))
    except OSError as error:
        raise UserError(f"--storage: {folder} cannot be read: {reason(error)}") from None
    return found


def _remove(folder: Path, files: int) -> None:
    for number in range(files):
        (folder / f"{number}").unlink(missing_ok=True)
    if folder.exists():
        folder.rmdir()
