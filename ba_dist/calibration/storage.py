"""What a filesystem gives: opening, one client, all together."""

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ba_dist.comm import Comm
from ba_dist.errors import UserError, reason

_RECORD = 114_700  # bytes of a JPEG of ImageNet in the mean
_THREADS = 8  # files that a rank reads at a time


@dataclass(frozen=True)
class Seen:
    """Of files of the size of ImageNet's JPEGs.

    Args:
        latency: seconds from opening a file to its first byte.
        client: bytes a second that one rank gets while the others wait.
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
    try:
        dropped = bool(comm.together(lambda: _write(mine, files)))
        # A node's ranks lie side by side: the next node's files are a node's ranks further.
        other = (comm.rank + comm.node.size) % comm.world_size
        theirs = folder / f"ba_dist-calibrate-{other}"
        half = files // 2
        first = comm.together(lambda: _read(theirs, 0, half) if comm.rank == 0 else _Read([], 1.0))
        comm.world.barrier()
        second = comm.together(lambda: _read(theirs, half, files))
        latency = float(np.median(first.latencies or [0.0]))
        facts = np.array([latency, half * _RECORD / first.seconds, second.seconds, not dropped])
        ranks = comm.world.gather_all(facts)
    finally:
        comm.world.barrier()
        _remove(mine, files)
    slowest, read = float(ranks[:, 2].max()), (files - half) * comm.world_size
    return Seen(
        latency=float(ranks[0, 0]),
        client=float(ranks[0, 1]),
        together=read * _RECORD / slowest,
        opens=read / slowest,
        cached=bool(ranks[:, 3].any()),
    )


@dataclass(frozen=True)
class _Read:
    """Seconds to the first byte of each file, and seconds of all of them."""

    latencies: list[float]
    seconds: float


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


def _read(folder: Path, first: int, last: int) -> _Read:
    """Reads files in several threads, as a rank does in training."""
    begun = time.perf_counter()
    try:
        with ThreadPoolExecutor(_THREADS) as threads:
            latencies = list(
                threads.map(lambda n: _first_byte(folder / f"{n}"), range(first, last))
            )
    except OSError as error:
        raise UserError(f"--storage: {folder} cannot be read: {reason(error)}") from None
    return _Read(latencies, time.perf_counter() - begun)


def _first_byte(path: Path) -> float:
    """Reads a file whole; seconds until its first byte was there."""
    begun = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.pread(descriptor, 1, 0)
        seconds = time.perf_counter() - begun
        while os.read(descriptor, 2**20):
            pass
    finally:
        os.close(descriptor)
    return seconds


def _remove(folder: Path, files: int) -> None:
    """Also what a failure has left half done; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        for number in range(files):
            (folder / f"{number}").unlink(missing_ok=True)
        folder.rmdir()
