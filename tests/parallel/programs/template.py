"""A process with TensorFlow and the package loaded, from which ranks are forked. SOCKET

It has started neither TensorFlow nor MPI: what is forked finds what a fresh rank finds, at once. It
becomes a rank of the job that the launcher has started by taking over environment, folder, cores,
streams and words of `rank.py`, which the launcher runs and which ends as it does.
"""

import contextlib
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import types
from pathlib import Path

from ba_dist import runtime

# What a training imports; not mpi4py.MPI, whose import starts MPI.
LOADED = ("horovod.tensorflow", "ba_dist.cli", "ba_dist.training", "ba_dist.experiment")
LOADED += ("ba_dist.data.pipeline", "ba_dist.models.resnet", "ba_dist.run.metrics")


def load() -> None:
    """TensorFlow in the way a training loads it, and the package."""
    runtime.quiet()
    with runtime._left_out("matplotlib", "scipy", "sklearn"), runtime._kept():
        for name in ("keras", *LOADED):
            importlib.import_module(name)
    assert "mpi4py.MPI" not in sys.modules


def asked(rank: socket.socket) -> dict:
    """What `rank.py` sends: one line, and with it its streams."""
    content, streams, *_ = socket.recv_fds(rank, 2**20, 3)
    while not content.endswith(b"\n"):
        content += rank.recv(2**20)
    return {**json.loads(content), "streams": streams}


def next_rank(listener: socket.socket) -> dict:
    """Returns in each process that is to be a rank, with what it was asked; ends with the tests."""
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    children: dict[socket.socket, int] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:  # closed
                for child in children.values():
                    os.kill(child, signal.SIGKILL)
                sys.exit()
            elif key.fileobj is listener:
                rank = listener.accept()[0]
                request = asked(rank)
                if not (child := os.fork()):
                    return request
                for stream in request["streams"]:
                    os.close(stream)
                children[rank] = child
                selector.register(rank, selectors.EVENT_READ)
                selector.register(os.pidfd_open(child), selectors.EVENT_READ, rank)
            elif key.data is None:  # the launcher has ended rank.py
                os.kill(children[key.fileobj], signal.SIGKILL)
                selector.unregister(key.fileobj)
            else:
                selector.unregister(key.fd)
                os.close(key.fd)
                status = os.waitstatus_to_exitcode(os.waitpid(children.pop(key.data), 0)[1])
                with contextlib.suppress(KeyError):
                    selector.unregister(key.data)
                with contextlib.suppress(OSError), key.data:
                    key.data.sendall(f"{status}\n".encode())


def become(request: dict) -> list[str]:
    """Makes this process the one that the launcher has started; the words of its command."""
    for number, stream in enumerate(request["streams"]):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    os.sched_setaffinity(0, request["cores"])
    return request["words"]


def run(path: str) -> None:
    """As `python PATH` does it: the module lives until Python ends."""
    main = types.ModuleType("__main__")
    main.__file__ = path
    sys.modules["__main__"] = main
    sys.path[0] = str(Path(path).parent)
    exec(compile(Path(path).read_bytes(), path, "exec"), vars(main))


load()
with socket.socket(socket.AF_UNIX) as server:
    server.bind(sys.argv[1])
    server.listen(64)
    print("ready", flush=True)
    first, *sys.argv = become(next_rank(server))
# At the end of this file, so that errors and exits go all the way up as they do elsewhere.
if first == "python":
    run(sys.argv[0])
else:
    sys.argv = ["ba_dist", first, *sys.argv]
    runpy.run_module("ba_dist", run_name="__main__", alter_sys=True)
