"""Reads the traces of all ranks step by step, in memory that does not grow with the run."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ba_dist.errors import UserError
from ba_dist.run.trace import path_of

Entry = dict[str, Any]

_INTEGERS = ("step", "epoch", "group", "lane")
_LISTS = {"sample_ids": int, "copies": int, "augment_keys": str, "instance_sha256": str}
# A file is opened for one block at a time, so that any number of ranks stays within the limit of
# open files. Each rank needs 64 KiB of memory and its current line.
_BLOCK = 2**16


@dataclass(frozen=True)
class Weights:
    """A line between those of steps: the digest of the weights after so many steps."""

    after: int
    sha256: str


@dataclass
class Moment:
    """What all ranks wrote about one step, and about the weights before it.

    Args:
        step: number of the step. At the last moment, the end of the trace, no rank has an entry.
        entries: the line of each rank, None where it has none.
        weights: (rank, digest of weights) of the lines before the step's lines.
        problems: lines that are in the wrong order.
        next: the step of the next moment; None at the end.
    """

    step: int
    entries: list[Entry | None] = field(default_factory=list)
    weights: list[tuple[int, Weights]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    next: int | None = None


def traces(run_dir: Path, ranks: int) -> list[Path]:
    """The trace of each rank of a run.

    Raises:
        UserError: when one is missing.
    """
    paths = [path_of(run_dir, rank) for rank in range(ranks)]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{path} is missing; train with --trace to have a run that can be audited"
            )
    return paths


def moments(paths: list[Path], world_size: Callable[[int], int]) -> Iterator[Moment]:
    """The steps in order, one line of each rank at a time, without steps that no rank has.

    Args:
        paths: the trace of each rank.
        world_size: step → number of ranks that it ran on.

    Raises:
        UserError: naming file and line, when a line cannot be read.
    """
    cursors = [_Cursor(rank, path) for rank, path in enumerate(paths)]
    step: int | None = 0
    while step is not None:
        moment = Moment(step)
        for cursor in cursors:
            moment.entries.append(cursor.take(moment, cursor.rank < world_size(step)))
        ahead = [cursor.at for cursor in cursors if cursor.at is not None]
        if any(moment.entries):
            moment.next = step + 1
        elif ahead:
            moment.next = min(ahead)
        step = moment.next
        yield moment


def last_step(path: Path) -> int:
    """The last step in a trace, read from the end of the file; -1 if it has none."""
    size, tail = path.stat().st_size, _BLOCK
    while size:
        with path.open("rb") as file:
            file.seek(max(0, size - tail))
            lines = file.read().splitlines()
        # The first line of a tail may lack its beginning.
        whole = lines if tail >= size else lines[1:]
        steps = [found["step"] for found in map(_parse, whole) if isinstance(found, dict)]
        if steps or tail >= size:
            return int(steps[-1]) if steps else -1
        tail *= 4
    return -1


class _Cursor:
    """A position in the trace of a rank."""

    def __init__(self, rank: int, path: Path):
        self.rank = rank
        self._lines = _parsed(path)
        self._head = next(self._lines, None)
        self._early = 0

    @property
    def at(self) -> int | None:
        """The step of the next line, or the number of steps before its weights; None at the end."""
        if self._head is None:
            return None
        return self._head.after if isinstance(self._head, Weights) else int(self._head["step"])

    def take(self, moment: Moment, present: bool) -> Entry | None:
        """Moves past the line of a step, and returns it if there is one."""
        step = moment.step
        while self._head is not None and self.at is not None:
            found = self._head
            if self.at > step and not (present and isinstance(found, Weights)):
                return None
            self._head = next(self._lines, None)
            if isinstance(found, Weights):
                moment.weights.append((self.rank, found))
                self._early = max(self._early, found.after)
            elif found["step"] == step:
                self._look_for_early(moment)
                return found
            else:
                moment.problems.append(
                    f"step {found['step']}, rank {self.rank}: more than once in the trace, or out"
                    f" of order, before step {step}"
                )
        return None

    def _look_for_early(self, moment: Moment) -> None:
        if self._early > moment.step:
            moment.problems.append(
                f"step {moment.step}, rank {self.rank}: the digest of the weights after"
                f" {self._early} steps stands before it"
            )
        self._early = 0


def _parsed(path: Path) -> Iterator[Entry | Weights]:
    for number, line in enumerate(_lines(path), start=1):
        found = _parse(line)
        if isinstance(found, str):
            raise UserError(f"{path} line {number}{found}")
        yield found


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, which is closed between two blocks."""
    rest, offset = b"", 0
    while True:
        with path.open("rb") as file:
            file.seek(offset)
            block = file.read(_BLOCK)
        offset += len(block)
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
        if not block:
            if rest:
                yield rest
            return


def _parse(line: bytes) -> Entry | Weights | str:
    """What a line holds, or what is wrong with it."""
    try:
        found = json.loads(line)
        if "weights_after" in found:
            return Weights(_of(found, "weights_after", int), _of(found, "sha256", str))
        for name in _INTEGERS:
            _of(found, name, int)
        for name, kind in _LISTS.items():
            if not all(type(value) is kind for value in _of(found, name, list)):
                raise _Unexpected(f": {name} holds other things than {kind.__name__}")
        _of(found, "batch_sha256", str)
        found["replaced"] = {int(i): int(j) for i, j in found.get("replaced", {}).items()}
        entry: Entry = found
        return entry
    except KeyError as error:
        return f" has no {error}"
    except _Unexpected as error:
        return str(error)
    except (ValueError, TypeError, AttributeError):
        return " cannot be read"


class _Unexpected(Exception):
    """A value that is not what it should be."""


def _of(found: dict[str, Any], name: str, kind: type) -> Any:
    value = found[name]
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise _Unexpected(f": {name} is {value!r}")
    return value
