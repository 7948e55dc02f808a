"""Files that are there whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ba_dist.storage import whole_file

BOTH = pytest.mark.parametrize("alone", [True, False])


@BOTH
@pytest.mark.parametrize("data", ["Größe\n", "", b"\0\xff" * 1000])
def test_what_is_written_is_there(tmp_path, data, alone):
    path = tmp_path / "file"
    for _ in range(2):
        assert whole_file.write(path, data, alone) == path
        assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444


@BOTH
def test_the_folder_is_flushed_after_the_rename(tmp_path, monkeypatch, alone):
    """Otherwise a crash of the machine can undo the rename."""
    done, fsync, replace = [], os.fsync, Path.replace

    def note_fsync(number):
        done.append(("fsync", str(Path(f"/proc/self/fd/{number}").readlink())))
        fsync(number)

    def note_replace(old, new):
        done.append(("rename", os.fspath(old)))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    whole_file.write(tmp_path / "file", "new", alone)
    temporary = done[0][1]
    assert Path(temporary).parent == tmp_path
    assert done == [("fsync", temporary), ("rename", temporary), ("fsync", str(tmp_path))]


@pytest.mark.parametrize(
    ("number", "fine"),
    [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False), (errno.ENOSPC, False)],
)
def test_a_filesystem_that_cannot_flush_folders(tmp_path, monkeypatch, number, fine):
    fsync = os.fsync

    def refuse(opened):
        if stat.S_ISDIR(os.fstat(opened).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(opened)

    monkeypatch.setattr(os, "fsync", refuse)
    if fine:
        whole_file.write(tmp_path / "file", "new")
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            whole_file.write(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


@BOTH
def test_a_failed_write_leaves_the_old_content(tmp_path, alone):
    """A limit on file size stands in for a full disk."""
    program = f"""
import resource, signal
from pathlib import Path
from ba_dist.storage.whole_file import write
path = Path({str(tmp_path)!r}) / "file"
write(path, "old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write(path, "new" * 1000, {alone})
except OSError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_what_a_killed_process_has_left_is_written_over(tmp_path):
    (tmp_path / ".file.tmp").write_text("a process was killed here, after a longer text")
    whole_file.write(tmp_path / "file", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "new")]
