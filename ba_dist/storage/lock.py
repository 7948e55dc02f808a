"""A lock that one process at a time holds, on this host and on others that share its files.

The lock is the kernel's flock, which is released when its holder ends. Some filesystems of clusters
have no flock. There the lock is a file that is created exclusively and names its owner, so that a
file left by a killed job can be told from a lock that is still held.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_NO_FLOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_HELD = (errno.EAGAIN, errno.EACCES)
_FREE = b"-"  # overwrites the first byte of an owner's file when the lock is released
_PAUSE, _PATIENCE = 0.2, 10.0  # seconds


class LockHeld(Exception):
    """Another process holds the lock; the text says which, as far as it is known."""


class Lock:
    """A lock that is held, until `release` or the end of this process."""

    def __init__(self, number: int, flocked: bool):
        self._number, self._flocked = number, flocked

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    @property
    def held(self) -> bool:
        """Whether it has not been released."""
        return self._number >= 0

    def release(self) -> None:
        """Releases the lock; a second call does nothing."""
        if not self.held:
            return
        number, self._number = self._number, -1
        try:
            if self._flocked:
                fcntl.flock(number, fcntl.LOCK_UN)
            else:
                os.pwrite(number, _FREE, 0)
        finally:
            os.close(number)


def hold(path: Path, wait: bool = False) -> Lock:
    """Takes the lock.

    Args:
        path: of the lock's file. It is created where it is missing, and stays. Where there is no
            flock, the owners' files `NAME.owner-1` … are beside it.
        wait: whether to wait until the lock is free, rather than raise.

    Raises:
        LockHeld: when another process holds it and `wait` is not set.
        OSError: when the file cannot be made.
    """
    begun, announced = time.monotonic(), False
    while True:
        try:
            return _hold_now(path)
        except LockHeld as error:
            if not wait:
                raise
            if not announced and time.monotonic() - begun > _PATIENCE:
                announced = True
                print(f"waiting for {path}  {error}".rstrip(), file=sys.stderr, flush=True)
        time.sleep(_PAUSE)


def _hold_now(path: Path) -> Lock:
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(number)
        if error.errno in _HELD:
            raise LockHeld("") from None
        if error.errno not in _NO_FLOCK:
            raise
        return _own(path)
    return Lock(number, flocked=True)


# --- without flock --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Owner:
    """The process that made an owner's file.

    Args:
        host: name of its host.
        boot: identifies the start of the host's kernel.
        space: namespace of process numbers; a container has its own.
        process: process number.
        started: when the process started, in ticks of the kernel since boot.
        job: Slurm's job id and cluster; empty outside of a job.
        restart: how often Slurm had restarted this job.
    """

    host: str
    boot: str
    space: str
    process: int
    started: int
    job: str
    restart: int

    def __str__(self) -> str:
        job = f" of job {self.job}" if self.job else ""
        return f"process {self.process}{job} on {self.host}"


def this_process() -> Owner:
    """The owner to write into files of this process."""
    cluster, job = os.environ.get("SLURM_CLUSTER_NAME", ""), os.environ.get("SLURM_JOB_ID", "")
    restart = os.environ.get("SLURM_RESTART_COUNT", "")
    started, _ = _start_and_state(os.getpid()) or (0, "")
    return Owner(
        socket.gethostname(),
        _text("/proc/sys/kernel/random/boot_id"),
        _space(),
        os.getpid(),
        started,
        f"{job} of {cluster}" if job and cluster else job,
        int(restart) if restart.isdecimal() else 0,
    )


def is_gone(owner: Owner, me: Owner) -> bool:
    """Whether this owner has certainly ended, as far as process `me` can know.

    That is so if it was on this host and is no longer there, or if it was an earlier start of the
    same job: a job that Slurm queues again keeps its number, and Slurm never runs it twice at a
    time. Two steps of one start can run side by side, so these do not count. Of a process on
    another host nothing is known.
    """
    if owner.job and owner.job == me.job and owner.restart < me.restart:
        return True
    if owner.host != me.host:
        return False
    if owner.boot != me.boot:
        return bool(owner.boot and me.boot)
    return owner.space == me.space and not _runs(owner)


def _runs(owner: Owner) -> bool:
    try:
        os.kill(owner.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    found = _start_and_state(owner.process)
    if found is None:  # it is there, but hidden from this user
        return True
    started, state = found
    # A process that has ended can stay in the table for long, as a zombie.
    return started == owner.started and state not in ("Z", "X")


def _own(path: Path) -> Lock:
    """Makes the next owner's file beside the path.

    A file is never taken over, and the newest is never removed. A process that finds the newest
    owner gone creates the next file; of several that try, only one can create it.
    """
    me = this_process()
    newest = max(_numbers(path), default=0)
    while True:
        if newest:
            _refuse_unless_free(_owned(path, newest), me)
        mine = _owned(path, newest + 1)
        try:
            number = os.open(mine, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            newest += 1
            continue
        try:
            os.write(number, json.dumps(asdict(me)).encode())
            os.fsync(number)
        except BaseException:
            os.close(number)
            mine.unlink(missing_ok=True)
            raise
        found = _numbers(path)
        if max(found, default=0) <= newest + 1:
            break
        # Others were faster, and have already removed the file that was the newest here.
        os.close(number)
        mine.unlink(missing_ok=True)
        newest = max(found)
    for old in found:
        if old <= newest:
            _owned(path, old).unlink(missing_ok=True)
    return Lock(number, flocked=False)


def _refuse_unless_free(file: Path, me: Owner) -> None:
    """Raises LockHeld unless the owner has released the lock, or is gone."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return  # there is a newer file by now; creating the next one will show it
    if data.startswith(_FREE):
        return
    owner = _parse(data)
    if owner is None or not is_gone(owner, me):
        raise LockHeld(f"{owner or 'an unknown process'} holds it; if that is gone, delete {file}")


def _parse(data: bytes) -> Owner | None:
    """The owner that a file names; None when the file is corrupt or not yet written."""
    try:
        owner = Owner(**json.loads(data))
    except (ValueError, TypeError):
        return None
    types = {name: type(value) for name, value in asdict(owner).items()}
    if types != Owner.__annotations__ or not 0 < owner.process < 2**31:
        return None
    return owner


def _owned(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.owner-{number}")


def _numbers(path: Path) -> list[int]:
    """The numbers of the owners' files that are there."""
    pattern = re.compile(rf"{re.escape(path.name)}\.owner-(\d+)")
    matches = [pattern.fullmatch(file.name) for file in path.parent.iterdir()]
    return [int(match[1]) for match in matches if match]


def _start_and_state(process: int) -> tuple[int, str] | None:
    """When a process started (ticks since boot), and its state, one letter; None if unreadable."""
    try:
        # The program's name, in brackets, may hold any character.
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19]), fields[0].decode()
    except (OSError, ValueError, IndexError):
        return None


def _space() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text().strip()
    return ""
