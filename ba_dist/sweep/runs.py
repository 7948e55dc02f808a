"""Runs the points of a sweep one after the other, each as `ba-dist run` would start it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

LOGS = "logs"
_LOOKS = 0.5  # seconds between two looks at a run
_TAIL = 100_000  # bytes of a log, and of a run's metrics, that are looked at


Call = tuple[Sequence[str], Mapping[str, str]]  # command line, environment


def finished(folder: Path) -> bool:
    """Whether a run has come to its end; a run that goes on has no summary yet."""
    return (folder / "summary.json").is_file()


@dataclass
class Outcome:
    """What came of running them.

    Args:
        failed: run → why, for a person.
        stopped: whether somebody asked to stop before the end.
    """

    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


class Runner:
    """Runs one command at a time; a request to stop is passed on to it, and begins no other.

    Args:
        folder: of the sweep.
        say: shows a line.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self._folder, self._say = folder, say
        self._requested: list[int] = []  # signals, in the order that they came
        self._child: subprocess.Popen[bytes] | None = None

    def all(self, calls: Mapping[str, Call]) -> Outcome:
        """Runs those that are not finished, in order; one that fails does not end the others.

        Args:
            calls: name of a run → how it is started.
        """
        outcome = Outcome()
        waiting = [name for name in calls if not finished(self._folder / name)]
        if done := len(calls) - len(waiting):
            self._say(f"{done} of {len(calls)} runs were finished before")
        (self._folder / LOGS).mkdir(exist_ok=True)
        with self._requests(), _bar(len(calls), done) as bar:
            for name in waiting:
                if self._requested:
                    break
                status = self._one(name, calls[name], bar)
                bar.update()
                if status and self._requested:
                    break
                if why := self._trouble(name, status):
                    outcome.failed[name] = why
                    self._say(f"failed: {name}: {why}")
                elif bar.disable:
                    self._say(f"finished: {name}")
        outcome.stopped = bool(self._requested)
        return outcome

    def _one(self, name: str, call: Call, bar: Any) -> int:
        """The exit status of a run, whose output goes to its log."""
        line, environment = call
        with (self._folder / LOGS / f"{name}.log").open("ab") as log:
            # In a session of its own: Ctrl-C reaches it through this process alone, once.
            self._child = subprocess.Popen(
                line,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            if self._requested:  # asked between two runs
                self._pass_on()
            while True:
                bar.set_description_str(f"{name}{_progress(self._folder / name)}")
                try:
                    return self._child.wait(_LOOKS)
                except subprocess.TimeoutExpired:
                    continue

    def _trouble(self, name: str, status: int) -> str:
        """Why a run that has ended did not come to its end; empty where it did."""
        if status == 0 and finished(self._folder / name):
            return ""
        log = self._folder / LOGS / f"{name}.log"
        said = [line for line in _tail(log).splitlines() if line.startswith("ba-dist: ")]
        why = said[-1].removeprefix("ba-dist: ") if said else f"exit status {status}"
        return f"{why} ({log})"

    @contextlib.contextmanager
    def _requests(self) -> Iterator[None]:
        """Ctrl-C and signals ask the run to save its state and end; again, to end at once."""

        def note(number: int, frame: Any) -> None:
            self._requested.append(number)
            self._pass_on()

        names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        before = {name: signal.signal(name, note) for name in names}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

    def _pass_on(self) -> None:
        if self._child is not None and self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(signal.SIGTERM)


def _bar(total: int, done: int) -> Any:
    """On a terminal alone; elsewhere a line tells of each run."""
    return tqdm(
        total=total,
        initial=done,
        disable=not sys.stderr.isatty(),
        ncols=78,
        bar_format="{n}/{total} |{bar:10}| {desc}",
        leave=False,
    )


def _progress(folder: Path) -> str:
    """`  step 40, loss 1.2` of a run that goes on."""
    for line in reversed(_tail(folder / "metrics.jsonl").splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            event = json.loads(line)
            return f"  step {event['step']}, loss {event['loss']:.3g}"
    return ""


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
