"""What a person sees while a run trains: a bar on a terminal, elsewhere a line now and then."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

WIDTH = 78  # columns that a line takes at most, whatever its numbers are
_LINE_SECONDS = 30.0
_BAR = 10  # columns of ` 65%|███| `, the least that the bar itself takes


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
                file=self._terminal,
                ncols=self._columns(),
                bar_format="{percentage:3.0f}%|{bar}| {desc}",
                leave=False,
            )

    def step(self, done: int, parts: Sequence[str]) -> None:
        """Shows that so many steps are done, and how training goes.

        Args:
            done: steps that are done.
            parts: what to say beside it; the last of them go where the line would be too long.
        """
        if self._bar is not None:
            self._bar.ncols = self._columns()
            line = fitted(
                [f"{done}/{self._total}", *self._left(done), *parts], self._bar.ncols - _BAR
            )
            self._bar.set_description_str(line, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._shown and time.monotonic() - self._last_line > _LINE_SECONDS:
            self._last_line = time.monotonic()
            line = fitted([f"step {done}/{self._total}", *self._left(done), *parts], WIDTH)
            print(line, flush=True)

    def _left(self, done: int) -> list[str]:
        """The time until the end, if training goes on as it has since the start of this job."""
        if done == self._first:
            return []
        seconds = (time.monotonic() - self._start) / (done - self._first)
        return [f"{_clock((self._total - done) * seconds)} left"]

    def _columns(self) -> int:
        """Columns that a line may take on the terminal; one of unknown width says 0."""
        columns = os.get_terminal_size(self._terminal.fileno()).columns if self._terminal else 0
        return min(columns - 1, WIDTH) if columns else WIDTH

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


def fitted(parts: Sequence[str], width: int) -> str:
    """One line of the first part and as many of the next ones as fit into so many columns."""
    line, *rest = parts
    for part in rest:
        if len(line) + 2 + len(part) > width:
            break
        line += f"  {part}"
    return line[:width]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 100 * 60:
        return f"{minutes / (24 * 60):.3g} days"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
