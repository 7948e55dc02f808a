"""Files kept open for reading at random, a bounded number of them, for any number of threads."""

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from ba_dist.errors import CorruptRecord

Opened = TypeVar("Opened")


def open_files_limit() -> int:
    """How many files one source keeps open: a third of what this process may have open.

    There are two sources, of training and of validation; the last third is for everybody else.
    """
    return max(8, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)


class Kept(Generic[Opened]):
    """Files by number, opened when first asked for; beyond the limit the oldest one is let go.

    What is let go is closed by its own finaliser when the last thread that reads it is done.
    There is no lock, which a fork could copy while it is held: each operation on the dictionary is
    one step of the interpreter, and two threads that open the same file at a time keep one of both.

    Args:
        open_file: number → an open file.
        limit: how many are kept.
    """

    def __init__(self, open_file: Callable[[int], Opened], limit: int):
        self._open_file, self._limit = open_file, limit
        self._kept: dict[int, Opened] = {}

    def __getitem__(self, number: int) -> Opened:
        found = self._kept.get(number)
        if found is None:
            found = self._kept.setdefault(number, self._open_file(number))
            while len(self._kept) > self._limit:
                self._kept.pop(list(self._kept)[0], None)
        return found

    def forget(self, number: int) -> None:
        """Opens this file anew when it is next asked for."""
        self._kept.pop(number, None)


class FileDescriptor:
    """A regular file open for reading at any place; threads and forked processes may share it.

    Raises:
        OSError: when it cannot be opened or is no regular file.
    """

    def __init__(self, path: Path | bytes):
        # A pipe that somebody has put there would otherwise be waited for.
        self._number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def __del__(self) -> None:
        if hasattr(self, "_number"):
            os.close(self._number)

    def size(self) -> int:
        """In bytes."""
        return os.fstat(self._number).st_size

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, fewer only at the end of the file."""
        data = os.pread(self._number, size, offset)
        while 0 < len(data) < size:  # Linux gives at most 2 GiB at a time, some filesystems less
            more = os.pread(self._number, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data


def unreadable(error: OSError) -> CorruptRecord:
    """What a source raises when the system cannot read a record's file."""
    return CorruptRecord(f"it cannot be read: {error.strerror or error}")
