"""How a scheduler or a person asks a run to stop."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_END = b"\0"  # no signal has the number 0


class StopRequest:
    """Whether this rank was asked to stop, and whether all ranks have agreed to stop."""

    wanted = False
    agreed = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Listens to SIGTERM, SIGUSR1, SIGUSR2 and Ctrl-C; the handler only sets a flag.

    A second Ctrl-C ends the process at once with status 130, even inside a collective. The launcher
    then ends the other ranks.
    """
    stop = StopRequest()

    def note(number: int, frame: Any) -> None:
        stop.wanted = True

    names = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
    before = {name: signal.signal(name, note) for name in names}
    try:
        with _impatience():
            yield stop
    finally:
        for name, handler in before.items():
            # A rank that is already leaving may get the same request again, late.
            ignored = stop.agreed and name != signal.SIGINT
            signal.signal(name, signal.SIG_IGN if ignored else handler)


@contextmanager
def _impatience() -> Iterator[None]:
    """Ends the process at a second Ctrl-C, from a thread.

    Python runs a signal handler only when the main thread leaves MPI; a thread is told at once.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(
        target=_end_at_the_second, args=(reading,), name="signals", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writing, _END)  # closing it would not be seen while a forked process has it open
        thread.join()
        os.close(writing)
        os.close(reading)


def _end_at_the_second(reading: int) -> None:
    seen, numbers = 0, b""
    while _END not in numbers:
        numbers = os.read(reading, 64)
        seen += numbers.count(signal.SIGINT)
        if seen > 1:
            os._exit(128 + signal.SIGINT)
