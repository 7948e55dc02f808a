"""Runs a launcher of ranks (mpirun, srun) and ends when everything of it has ended.

    python supervise.py NAME KIND STOP_SIGNAL END_SIGNAL COMMAND [ARGUMENT ...]

NAME begins its own messages. KIND is `prterun` (Open MPI 5), `orterun` (Open MPI 4), `srun`, or
`plain` for a launcher whose own status is that of the ranks, and whose errors need not be read
(launcher_errors.py).

A request to stop (SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2) is passed on as STOP_SIGNAL; a second
one, or BA_DIST_STOP_SECONDS, ends the launcher with END_SIGNAL. The exit status is the ranks'.

This is no shell script, because bash has been seen to wait forever for a launcher that had ended
while a trap ran.
"""

import contextlib
import ctypes
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True  # no files beside a person's scripts
sys.path.insert(0, str(Path(__file__).parent))  # which `python -I` leaves out

# Behind these two lines, for it is found and left uncompiled by them.
from launcher_errors import KINDS, Errors, write  # noqa: E402

PR_SET_CHILD_SUBREAPER = 36  # from <sys/prctl.h>
REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STOP_SECONDS = float(os.environ.get("BA_DIST_STOP_SECONDS") or 60)
# A launcher whose processes have all ended has so long to end, too; 10 s when it has said so.
LINGER_SECONDS = float(os.environ.get("BA_DIST_LINGER_SECONDS") or 30)


def children(pid: int, *, ended: bool = False) -> list[int]:
    """The processes that a process has started and that run, or that it has not collected yet."""
    found: list[str] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += path.read_text().split()
        except OSError:
            continue  # a thread that has just ended
    return [int(child) for child in found if ended or _runs(child)]


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Launcher:
    """The launcher's process, from its start to the end of all that it started."""

    def __init__(self, name: str, kind: str, stop: str, end: str, command: list[str]) -> None:
        self.name, self.command = name, command
        self.kind = KINDS[kind]()
        self.lingers = kind == "prterun"
        self.folder = self.own_folder() if kind == "prterun" else None
        self.stop, self.end = signal.Signals[f"SIG{stop}"], signal.Signals[f"SIG{end}"]
        self.errors = Errors(self.kind)
        self.ended: int | None = None  # the launcher's status as Python counts: -6 for SIGABRT
        self.process: subprocess.Popen[bytes] | None = None
        self.early = self.stopping = self.killed = self.expected = self.had_children = False
        self.orders: list[tuple[float, signal.Signals]] = []
        self.selector = selectors.DefaultSelector()
        # What the launcher leaves behind becomes a child of this process, and can be ended.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.start(read=kind != "plain")
        self.busy = time.monotonic()  # when the launcher was last seen to have a child

    def own_folder(self) -> str | None:
        """Where Open MPI 5 keeps what it needs while it runs: a folder of this launch alone.

        Otherwise it is named after its process id alone, and a later launcher that happens to get
        the id of one that was killed does not start ("listener thread failed to start").
        """
        if "tmpdir_base" in " ".join([*os.environ, *self.command]):
            return None  # the user has chosen; Open MPI takes no second choice
        folder = tempfile.mkdtemp(prefix="ba-dist-")
        os.environ.update(PRTE_MCA_prte_local_tmpdir_base=folder)
        return folder

    def start(self, *, read: bool) -> None:
        wakes, waker = os.pipe()
        for end in (wakes, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(wakes, selectors.EVENT_READ)
        for request in REQUESTS:
            if signal.getsignal(request) is not signal.SIG_IGN:  # as under nohup
                signal.signal(request, self.request)
        self.reader: int | None
        self.reader, writer = os.pipe() if read else (None, None)
        helper = Path(__file__).with_name("end_with_parent.py")
        self.process = subprocess.Popen(
            [sys.executable, "-IS", str(helper), self.end.name[3:], *self.command],
            stderr=writer,
            preexec_fn=os.setpgrp,  # so that Ctrl-C reaches this process alone
        )
        if self.early:
            self.request()
        if self.reader is not None and writer is not None:
            os.close(writer)
            os.set_blocking(self.reader, False)
            self.selector.register(self.reader, selectors.EVENT_READ)

    # ------------------------------------------------------------ ending it

    def request(self, *_: object) -> None:
        """Asks the ranks to save and stop; a second request, or a timeout, ends them."""
        if self.process is None:
            self.early = True
            return
        if self.ended is not None:
            return
        if self.stopping:
            self.kill(self.end)
            return
        self.stopping = True
        self.pass_on(self.stop)
        later = time.monotonic() + STOP_SECONDS
        self.orders += [(later, self.end), (later + 10, signal.SIGKILL)]
        self.say("stopping; once more to stop at once")

    def kill(self, number: signal.Signals) -> None:
        if self.ended is None:
            self.killed = True
            self.pass_on(number)

    def pass_on(self, number: signal.Signals) -> None:
        # Not by Popen.send_signal, which looks first whether the process has ended, and would take
        # its status away from `reap`.
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def say(self, text: str) -> None:
        write(f"{self.name}: {text}\n".encode())

    # ------------------------------------------------------------ watching it

    def look(self, seconds: float = 1) -> None:
        """Waits for errors, signals or an end, at most so long, and does what is due."""
        for key, _ in self.selector.select(seconds):
            try:
                data = os.read(key.fd, 2**20)
            except BlockingIOError:
                continue
            if key.fd == self.reader and data:
                self.errors.take(data)
            elif key.fd == self.reader:
                self.selector.unregister(key.fd)
        self.errors.look()
        self.reap()

    def reap(self) -> bool:
        """Notes which children have ended; whether any is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if self.process is not None and pid == self.process.pid:
                self.process.returncode = self.ended = os.waitstatus_to_exitcode(status)

    def linger(self) -> None:
        """Kills a launcher that stays after it has said that it ends, or after all its children."""
        assert self.process is not None
        now = time.monotonic()
        if self.kind.status and not self.expected:
            self.expected = True
            self.orders.append((now + min(LINGER_SECONDS, 10), signal.SIGKILL))
        # Under PBS it starts its daemons without a process of its own, and has no children at all.
        self.had_children = self.had_children or bool(children(self.process.pid, ended=True))
        if children(self.process.pid) or not self.had_children:
            self.busy = now
        elif now - self.busy > LINGER_SECONDS and children(os.getpid()):  # where they can be seen
            self.kill(signal.SIGKILL)

    def run(self) -> int:
        looked = 0.0
        while self.ended is None:
            self.look()
            now = time.monotonic()
            for order in [it for it in self.orders if it[0] <= now]:
                self.orders.remove(order)
                self.kill(order[1])
            if self.lingers and now - looked >= 1:
                looked = now
                self.linger()
        self.end_leftovers()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.errors.end(self.ended)
        # As Python ends it gives signals their own effect back, and that is an end without status.
        for request in REQUESTS:
            signal.signal(request, signal.SIG_IGN)
        return self.tell()

    def end_leftovers(self) -> None:
        """Ends what the launcher has left: ranks, daemons, the srun or ssh that started them."""
        start, told = time.monotonic(), set()
        while self.reap() and (waited := time.monotonic() - start) < 15:
            for pid in children(os.getpid()):
                if waited > 7 or (waited > 2 and pid not in told):
                    told.add(pid)
                    os.kill(pid, signal.SIGKILL if waited > 7 else signal.SIGTERM)
            self.look(0.1)
        self.look(0)  # the last errors

    def tell(self) -> int:
        """The exit status; says so when the launcher has died of a fault of its own."""
        assert self.ended is not None
        if self.ended >= 0:
            return self.ended if self.kind.right else self.kind.status or self.ended
        if not self.killed and -self.ended != self.stop:
            died = f"{Path(self.command[0]).name} died of {signal.Signals(-self.ended).name}"
            if self.kind.status:
                self.say(f"{died} after the ranks had ended with status {self.kind.status}")
            else:
                self.say(f"{died} without saying how the ranks ended; all of them are ended")
        return self.kind.status or 128 - self.ended


if __name__ == "__main__":
    name, kind, stop, end, *command = sys.argv[1:]
    sys.exit(Launcher(name, kind, stop, end, command).run())
