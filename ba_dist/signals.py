"""How a scheduler or a person asks a run to stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """Whether this rank has been asked to stop, and whether all ranks have agreed to."""

    wanted = False
    agreed = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Listens to SIGTERM, SIGUSR1, SIGUSR2 and Ctrl-C; the handler only sets a flag.

    A second Ctrl-C ends the process at once.
    """
    stop = StopRequest()

    def note(number: int, frame: Any) -> None:
        stop.wanted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    names = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
    before = {name: signal.signal(name, note) for name in names}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            # The same request may come again, late, to a rank that is already leaving.
            ignored = stop.agreed and name != signal.SIGINT
            signal.signal(name, signal.SIG_IGN if ignored else handler)
