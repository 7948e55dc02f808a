"""Writes files whole or not at all, even if the machine crashes."""

import errno
import os
import tempfile
from pathlib import Path

# Errors of filesystems that cannot flush a folder, or do not let it be opened. A rename is then as
# safe as the filesystem makes it.
_NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES)


def write(path: Path, data: str | bytes, alone: bool = True) -> Path:
    """Replaces a file's content; a reader sees the old or the new, never a part.

    Args:
        path: of the file, in a folder that is there.
        data: all of its new content.
        alone: no other process writes this file at the same time. The temporary file then has a
            fixed name, `.NAME.tmp`, so that the next call overwrites what a killed one has left.

    Returns:
        The path.

    Raises:
        OSError: when it cannot be written; then the old content is still there.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    if alone:
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    else:
        number, name = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
        temporary = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        if not alone:
            temporary.chmod(0o644)  # mkstemp makes files that others cannot read
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)
    return path


def flush_folder(folder: Path) -> None:
    """Makes renames in a folder permanent; without it a crash of the machine can undo them.

    Raises:
        OSError: when the disk fails; a filesystem that cannot flush a folder is no error.
    """
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise
