"""A file is there whole or not at all, also after a crash of the machine."""

import errno
import os
import tempfile
from pathlib import Path

# Answers of filesystems that cannot flush a folder, or let nobody open it; a rename is then as safe
# as they make it.
_NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES)


def write(path: Path, data: str | bytes, alone: bool = True) -> Path:
    """Replaces a file's content; a reader sees the old or the new, never a part.

    Args:
        path: of the file, in a folder that is there.
        data: all of its new content.
        alone: nobody else writes this file at the same time. The temporary file has then a fixed
            name, `.NAME.tmp`, and the next call writes over what a killed one has left.

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
            temporary.chmod(0o644)  # from one that others cannot read
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)
    return path


def flush_folder(folder: Path) -> None:
    """Makes the renames in a folder last, which otherwise a crash of the machine can undo.

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
