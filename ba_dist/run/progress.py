"""What a person sees while a run trains: a bar on a terminal, elsewhere a line now and then."""

import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

_LINE_SECONDS = 30.0


class Progress:
    """A bar on a terminal, a plain line now and then elsewhere, nothing on ranks other than 0.

    Args:
        shown: whether this rank shows anything.
        done: steps done before.
        total: steps of the run.
    """

    def __init__(self, shown: bool, done: int, total: int):
        self._shown = shown
        self._total = total
        self._last_line = self._start = time.monotonic()
        self._first = done
        self._bar: Any = None
        self._terminal = _terminal() if shown else None
        if self._terminal is not None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=done,
                unit="step",
                file=self._terminal,
                dynamic_ncols=True,
                leave=False,
            )

    def step(self, done: int, text: str) -> None:
        """Shows that so many steps are done, and how training goes."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._shown and time.monotonic() - self._last_line > _LINE_SECONDS:
            self._last_line = time.monotonic()
            rate = (self._last_line - self._start) / (done - self._first)
            left = (self._total - done) * rate
            print(f"step {done}/{self._total}  {text}  {_clock(left)} left", flush=True)

    def say(self, text: str) -> None:
        """Shows a line beside the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._terminal)
        elif self._shown:
            print(text, flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()


def _terminal() -> TextIO | None:
    """Where a bar can be drawn: the launcher's terminal when it is on this host, or our own."""
    told = os.environ.get("BA_DIST_TERMINAL")
    if told is None:
        return sys.stderr if sys.stderr.isatty() and sys.stdout.isatty() else None
    host, _, path = told.partition(":")
    if host != os.uname().nodename or not path.startswith("/dev/"):
        return None
    try:
        return Path(path).open("w")
    except OSError:
        return None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
