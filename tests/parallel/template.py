"""The process from which ranks are forked that have TensorFlow loaded; one for all tests.

Importing TensorFlow and the package costs a rank two seconds of a core. A program that ends by
itself behaves the same when its process has that behind it: `programs/template.py` says why. The
launcher starts it as it starts any other, and its end is the launcher's.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"


class Template:
    """Starts when it is made; `close` ends it and what was forked from it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ba_dist-")
        self._socket = Path(self._folder.name) / "socket"
        # What launch/ranks.sh gives to ranks, and a process reads as it starts.
        environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "template.py"), str(self._socket)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, **os.environ},
            start_new_session=True,  # Ctrl-C is for the tests, which end this
        )
        assert self._process.stdout and self._process.stdout.readline() == b"ready\n"

    def words(self, *words: object) -> list[object]:
        """What the launcher is to run on each rank, instead of WORDS."""
        return ["python", PROGRAMS / "rank.py", self._socket, *words]

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()
        self._folder.cleanup()
