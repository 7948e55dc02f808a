"""A limited number of files that stay open for random reads, by any number of threads."""

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from ba_dist.errors import CorruptRecord

Opened = TypeVar("Opened")


def open_files_limit() -> int:
    """How many files one source keeps open: a third of what this process may have open.

    Training and validation have a source each; the last third is for everything else.
    """
    return max(8, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)


class OpenFiles(Generic[Opened]):
    """Files by number, opened when they are first asked for; at most `limit` stay open.

    Beyond the limit the file that was opened first is dropped. Its own finaliser closes it when the
    last thread that reads it is done.

    There is no lock, because a fork could copy it while it is locked. Each operation on the
    dictionary is one step of the interpreter, and when two threads open the same file at a time,
    one of the two is kept.

    Args:
        open_file: number → an open file.
        limit: how many stay open.
    """

    def __init__(self, open_file: Callable[[int], Opened], limit: int):
        self._open_file, self._limit = open_file, limit
        self._open: dict[int, Opened] = {}

    def __getitem__(self, number: int) -> Opened:
        found = self._open.get(number)
        if found is None:
            found = self._open.setdefault(number, self._open_file(number))
            while len(self._open) > self._limit:
                self._open.pop(list(self._open)[0], None)
        return found

    def forget(self, number: int) -> None:
        """Drops this file, so that it is opened again when it is next asked for."""
        self._open.pop(number, None)


class FileDescriptor:
    """A regular file open for reading at any offset; threads and forked processes may share it.

    Raises:
        OSError: when it cannot be opened or is no regular file.
    """

    def __init__(self, path: Path | bytes):
        # Without O_NONBLOCK opening a named pipe would wait for a writer.
        self._number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def __del__(self) -> None:
        if hasattr(self, "_number"):
            os.close(self._number)

    def size(self) -> int:
        """The size in bytes."""
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
