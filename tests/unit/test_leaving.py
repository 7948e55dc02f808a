"""What a rank has said has left it before it ends the job."""

import os
import threading
from pathlib import Path

from ba_dist.comm.leaving import _deliver


def test_a_rank_waits_until_the_launcher_has_read_what_it_said():
    reads, writes = os.pipe()
    with os.fdopen(writes, "w") as stream:
        stream.write("rank 1 failed")
        waits = threading.Thread(target=_deliver, args=(stream, 60))
        waits.start()
        waits.join(0.3)
        assert waits.is_alive()
        assert os.read(reads, 100) == b"rank 1 failed"
        waits.join(30)
        assert not waits.is_alive()
    os.close(reads)


def test_it_does_not_wait_for_ever_and_not_for_files(tmp_path):
    reads, writes = os.pipe()
    with os.fdopen(writes, "w") as stream:
        stream.write("nobody reads it")
        _deliver(stream, 0.01)
        os.close(reads)
        stream.write("nobody can")
        _deliver(stream, 60)  # BrokenPipeError
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), writes)  # takes what is left
    with (tmp_path / "file").open("w") as stream:
        stream.write("kept")
        _deliver(stream, 60)
        assert (tmp_path / "file").read_text() == "kept"
    _deliver(stream, 60)  # closed
