"""What a filesystem gives: opening, one client, all together."""

import contextlib
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ba_dist.comm import Comm
from ba_dist.errors import UserError, reason

_RECORD = 114_700  # bytes of a JPEG of ImageNet in the mean
_MEMORY = ("tmpfs", "ramfs")  # filesystems that have nothing but memory
_BYTES = 0.1  # share of the seconds of reading, at least, that bytes take and not latency


@dataclass(frozen=True)
class Seen:
    """Of files of the size of ImageNet's JPEGs.

    Args:
        latency: seconds from opening a file to its first byte.
        client: bytes a second that one node gets while the others wait, latency apart.
        together: bytes a second of all ranks at a time.
        opens: files a second that all ranks open, as they read them.
        cached: whether memory was measured.
    """

    latency: float
    client: float
    together: float
    opens: float
    cached: bool


def check(folder: Path) -> None:
    """Before the minutes of measuring, not after them; leaves nothing.

    Raises:
        UserError: where the folder is not there, or nothing can be written to it.
    """
    try:
        if not folder.is_dir():
            raise UserError(
                f"--storage {folder} is no folder here; expected one, that all nodes see, on the"
                " filesystem that holds the data"
            )
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from None


def storage(comm: Comm, folder: Path, files: int, threads: int) -> Seen:
    """Writes files to a folder that all ranks see, reads them, and removes them; collective.

    First the ranks of one node read half of them, then all ranks the others. A rank reads what the
    one after it has written, on another node where there is one. Pages are dropped from the cache
    of the node that wrote them.

    Args:
        comm: the ranks.
        folder: on the filesystem in question.
        files: that each rank writes.
        threads: files that a rank reads at a time.

    Raises:
        UserError: on all ranks, where one cannot write or read them.
    """
    mine = folder / f"ba_dist-calibrate-{comm.rank}"
    try:
        comm.together(lambda: _write(mine, files))
        # A node's ranks lie side by side: the next node's files are a node's ranks further.
        other = (comm.rank + comm.node.size) % comm.world_size
        theirs = folder / f"ba_dist-calibrate-{other}"
        half = files // 2
        one = comm.host == comm.hosts[0]
        first = comm.together(lambda: _read(theirs, range(half if one else 0), threads))
        second = comm.together(lambda: _read(theirs, range(half, files), threads))
        latency = float(np.median(first.latencies or [0.0]))
        facts = np.array([one, latency, first.seconds, second.seconds, _in_memory(folder)])
        ranks = comm.world.gather_all(facts)
    finally:
        # Nobody reads any more: the last thing that `together` does is to hear of all ranks.
        _remove(mine, files)
    node = ranks[ranks[:, 0] > 0]
    latency, client = split(
        float(node[:, 2].max()), float(np.median(node[:, 1])), half, len(node), threads
    )
    slowest, read = float(ranks[:, 3].max()), (files - half) * comm.world_size
    return Seen(latency, client, read * _RECORD / slowest, read / slowest, bool(ranks[:, 4].any()))


def split(
    seconds: float, latency: float, files: int, ranks: int, threads: int
) -> tuple[float, float]:
    """(latency, bytes a second of a node) with which a plan's reading takes what it has taken.

        seconds = files · latency / threads + ranks · files · bytes / client

    Files that wait for each other's bytes have a latency that would leave no time for bytes: then
    it is shortened.

    Args:
        seconds: in which a node's ranks have read.
        latency: of a file, as it was seen.
        files: that each rank has read.
        ranks: of the node.
        threads: files that a rank reads at a time.
    """
    waited = min(files * latency / threads, (1 - _BYTES) * seconds)
    return waited * threads / files, ranks * files * _RECORD / (seconds - waited)


def _in_memory(folder: Path) -> bool:
    """Whether the folder's filesystem is one that keeps files in memory alone."""
    import psutil

    path = folder.resolve()
    mounted = [p for p in psutil.disk_partitions(all=True) if path.is_relative_to(p.mountpoint)]
    return bool(mounted) and max(mounted, key=lambda p: len(p.mountpoint)).fstype in _MEMORY


@dataclass(frozen=True)
class _Read:
    """Seconds to the first byte of each file, and seconds of all of them."""

    latencies: list[float]
    seconds: float


def _write(folder: Path, files: int) -> None:
    """Writes files whose pages are gone from the cache afterwards."""
    content = np.random.default_rng(0).bytes(_RECORD)
    try:
        folder.mkdir(exist_ok=True)
        for number in range(files):
            with (folder / f"{number}").open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise _unwritable(folder.parent, error) from None


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"--storage {folder} cannot be written: {reason(error)}")


def _read(folder: Path, numbers: range, threads: int) -> _Read:
    """Reads files in several threads, as a rank does in training."""
    begun = time.perf_counter()
    try:
        with ThreadPoolExecutor(threads) as pool:
            latencies = list(pool.map(lambda n: _first_byte(folder / f"{n}"), numbers))
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
