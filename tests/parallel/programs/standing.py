"""A rank that stands ready: runs programs one after the other, each in a process of its own. SOCKET

Each process is forked from this one, which has loaded TensorFlow and the package but has started
neither TensorFlow nor MPI. So a program finds what it would find in a fresh rank, at once: it
starts MPI and Horovod itself, may change what it likes in them, and its end is the end of a rank.
"""

import ctypes
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import types
from pathlib import Path

from ba_dist import runtime
from ba_dist.comm import launched

PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>
# What a training imports; not mpi4py.MPI, whose import starts MPI.
LOADED = ("horovod.tensorflow", "ba_dist.cli", "ba_dist.train", "ba_dist.experiment")
LOADED += ("ba_dist.data.pipeline", "ba_dist.models.resnet", "ba_dist.run.metrics")


def load() -> None:
    """TensorFlow in the way a training loads it, and the package."""
    runtime.quiet()
    with runtime._left_out("matplotlib", "scipy", "sklearn"), runtime._kept():
        for name in ("keras", *LOADED):
            importlib.import_module(name)
    assert "mpi4py.MPI" not in sys.modules


def next_request(tests: socket.socket) -> dict:
    """Returns in the process of each program, with what the tests ask of it; ends with them."""
    for line in tests.makefile():
        if not os.fork():
            return json.loads(line)
        status = os.waitstatus_to_exitcode(os.wait()[1])
        tests.sendall(f"{status}\n".encode())
    sys.exit()


def become(request: dict) -> None:
    """Makes this process look as if the launcher had started it for the program."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"{request['output']}-{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment | request["set"])
    for name in request["unset"]:
        os.environ.pop(name, None)
    os.chdir(request["folder"])


def run(path: str) -> None:
    """As `python PATH` does it: the module lives until Python ends."""
    main = types.ModuleType("__main__")
    main.__file__ = path
    sys.modules["__main__"] = main
    sys.path[0] = str(Path(path).parent)
    exec(compile(Path(path).read_bytes(), path, "exec"), vars(main))


rank, environment = launched().rank, dict(os.environ)
load()
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(f"{rank}\n".encode())
request = next_request(connection)
connection.close()
become(request)
first, *sys.argv = request["words"]
# At the end of this file, so that errors and exits go all the way up as they do elsewhere.
if first == "python":
    run(sys.argv[0])
else:
    sys.argv = ["ba_dist", first, *sys.argv]
    runpy.run_module("ba_dist", run_name="__main__", alter_sys=True)
