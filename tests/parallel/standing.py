"""Ranks that stand ready, started once by the real launcher for each number of them.

A start costs each rank two seconds of a core before its program does anything: Python, TensorFlow,
the package. A program that ends by itself behaves the same on ranks that have that behind them;
`programs/standing.py` says why. What kills or is killed, and what looks at the launcher itself,
has a start of its own: `mpirun` of ranks.py.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

SERVER = Path(__file__).parent / "programs" / "standing.py"
START_SECONDS = 120


class StandingRanks:
    """So many ranks; `run` runs a program on all of them, `close` ends them.

    Args:
        launcher: launch/mpirun.sh.
        ranks: how many.
    """

    def __init__(self, launcher: Path, ranks: int):
        self._folder = Path(tempfile.mkdtemp(prefix="ba_dist-ranks-"))
        self._environment = dict(os.environ)
        self._number = 0
        name = self._folder / "socket"
        command = [launcher, "-n", ranks, "--", "python", SERVER, name]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(name))
            listener.listen(ranks)
            listener.settimeout(START_SECONDS)
            with (self._folder / "launcher").open("w") as output:
                self._launcher = subprocess.Popen(
                    list(map(str, command)),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            found = [listener.accept()[0] for _ in range(ranks)]
        deadline = time.monotonic() + START_SECONDS
        numbered = {_number(connection, deadline): connection for connection in found}
        self._ranks = [numbered[rank] for rank in range(ranks)]

    @property
    def ready(self) -> bool:
        """Whether they can run another program: one that aborts is the end of all."""
        return bool(self._ranks)

    def run(self, *words: object, timeout: float) -> subprocess.CompletedProcess[str]:
        """Runs `ba-dist WORDS` (or `python WORDS…`); in its output rank 0 comes first.

        Raises:
            TimeoutExpired: when it does not end in time, which ends these ranks.
        """
        self._number += 1
        prefix = self._folder / f"run-{self._number}"
        request = {
            "words": list(map(str, words)),
            "output": str(prefix),
            "folder": str(Path.cwd()),
            "set": {k: v for k, v in os.environ.items() if self._environment.get(k) != v},
            "unset": [name for name in self._environment if name not in os.environ],
        }
        for connection in self._ranks:
            connection.sendall(f"{json.dumps(request)}\n".encode())
        deadline = time.monotonic() + timeout
        try:
            statuses = [_number(connection, deadline) for connection in self._ranks]
        except (TimeoutError, ConnectionError) as error:
            return self._ended_with(error, request["words"], timeout, prefix)
        status = next(filter(None, statuses), 0)
        return subprocess.CompletedProcess(request["words"], status, *self._printed(prefix))

    def close(self) -> None:
        """Ends them, whatever they do."""
        for connection in self._ranks:
            connection.close()
        self._ranks = []
        try:
            self._launcher.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._launcher.terminate()
            self._launcher.wait()
        shutil.rmtree(self._folder)

    def _ended_with(
        self, error: OSError, words: list[str], timeout: float, prefix: Path
    ) -> subprocess.CompletedProcess[str]:
        """What came of a program that has hung, or has ended its job."""
        hung = isinstance(error, TimeoutError)
        if hung:
            self._launcher.terminate()
        status = self._launcher.wait()
        out, err = self._printed(prefix)
        err += (self._folder / "launcher").read_text()
        self.close()
        if hung:
            raise subprocess.TimeoutExpired(words, timeout, out, err)
        return subprocess.CompletedProcess(words, status, out, err)

    def _printed(self, prefix: Path) -> tuple[str, str]:
        """What all ranks have printed as output and as errors."""
        paths = [
            [Path(f"{prefix}-{rank}.{kind}") for rank in range(len(self._ranks))]
            for kind in ("out", "err")
        ]
        out, err = ("".join(p.read_text() for p in some if p.exists()) for some in paths)
        return out, err


def _number(connection: socket.socket, deadline: float) -> int:
    """The number on the next line that a rank sends.

    Raises:
        TimeoutError: when none comes in time.
        ConnectionError: when the rank is gone.
    """
    line = b""
    while not line.endswith(b"\n"):
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        if not (more := connection.recv(1)):
            raise ConnectionResetError("the rank is gone")
        line += more
    return int(line)
