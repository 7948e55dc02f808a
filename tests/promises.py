"""Counts how often a promise was kept, and prints a table of them at the end of the session.

    def test_a_killed_rank_ends_the_job(promise):
        …
        promise(1, "SIGKILL of a rank: all gone within 60 s", passed=20, total=20, seconds=times)

The environment variable BA_DIST_PROMISES names a file that gets the table as well: as JSON if its
name ends in `.json`, else as Markdown.
"""

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

FILE_VARIABLE = "BA_DIST_PROMISES"


@dataclass(frozen=True)
class Promise:
    """One line of the table.

    Args:
        row: of the list of promises in the documentation; 0 for what is not in it.
        what: was done, and what the user gets.
        passed: how often that was so.
        total: how often it was tried; 0 where only the seconds are of interest.
        seconds: that each try took, where they matter.
    """

    row: int
    what: str
    passed: int
    total: int
    seconds: list[float] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        return self.passed == self.total

    def cells(self) -> tuple[str, str, str, str]:
        """Row, what, count and seconds, as they are shown."""
        count = f"{self.passed} of {self.total}" if self.total else "measured"
        count += "" if self.kept else "  BROKEN"
        return str(self.row or "–"), self.what, count, spread(self.seconds)


def spread(seconds: Sequence[float]) -> str:
    """The median and the longest of some durations."""
    if not seconds:
        return ""
    if len(seconds) == 1:
        return f"{seconds[0]:.1f}"
    return f"{statistics.median(seconds):.1f}, at most {max(seconds):.1f}"


HEADER = ("row", "promise", "kept", "seconds")


def table(promises: Sequence[Promise]) -> str:
    """The table as Markdown, aligned so that it reads well on a terminal too."""
    rows = [HEADER, *(promise.cells() for promise in sorted(promises, key=lambda it: it.row))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write(promises: Sequence[Promise], path: Path) -> None:
    """Writes the table to a file, as JSON or Markdown by its name."""
    if path.suffix == ".json":
        rows = [asdict(promise) | {"kept": promise.kept} for promise in promises]
        path.write_text(json.dumps(rows, indent=1) + "\n")
    else:
        path.write_text(table(promises) + "\n")


class Collector:
    """The promises of one session of pytest; its method `add` is the fixture `promise`."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, str], Promise] = {}

    @property
    def promises(self) -> list[Promise]:
        """The lines of the table."""
        return list(self._lines.values())

    def add(
        self, row: int, what: str, passed: int, total: int, seconds: Sequence[float] | float = ()
    ) -> None:
        """Counts tries of a line of the table, then fails the test if the promise was broken.

        Args: as of `Promise`; `seconds` may be one number. The same row and words are one line.
        """
        times = [seconds] if isinstance(seconds, int | float) else list(seconds)
        promise = Promise(row, what, passed, total, times)
        self._count(promise)
        assert promise.kept, f"{what}: kept {passed} times of {total}"

    def _count(self, promise: Promise) -> None:
        line = promise.row, promise.what
        before = self._lines.get(line, Promise(*line, 0, 0))
        self._lines[line] = Promise(
            *line,
            before.passed + promise.passed,
            before.total + promise.total,
            before.seconds + promise.seconds,
        )

    # What the processes of pytest-xdist have counted comes to the one that prints the table.

    def pytest_sessionfinish(self, session) -> None:
        """Called by pytest at the end of the session, in every process."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["promises"] = [asdict(it) for it in self.promises]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node) -> None:
        """Called by pytest-xdist when another process has ended."""
        for fields in getattr(node, "workeroutput", {}).get("promises", []):
            self._count(Promise(**fields))

    def pytest_terminal_summary(self, terminalreporter) -> None:
        """Called by pytest at the end of the session."""
        if not self.promises:
            return
        terminalreporter.section("promises")
        terminalreporter.write_line(table(self.promises))
        if name := os.environ.get(FILE_VARIABLE):
            write(self.promises, Path(name))
