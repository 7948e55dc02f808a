"""What went wrong in a run or was unusual, as sentences."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ba_dist.health.nonfinite import FOLDER
from ba_dist.reports.history import History
from ba_dist.run.report import waiting


def incidents(run: History) -> list[str]:
    """A sentence for each kind of thing; empty of a run that went well."""
    return [*_ending(run), *_records(run), *_updates(run), *_slow(run), *_jobs(run)]


def _ending(run: History) -> Iterator[str]:
    if not run.summary:
        total = _planned(run)
        of = f" of {total}" if total else ""
        yield f"It has not come to its end: {run.steps}{of} steps are written down."
    if run.summary.get("smoke"):
        yield "A smoke run, on a few samples for a few steps: its accuracy says nothing."


def _planned(run: History) -> int:
    settings = run.settings()
    return int(settings.get("steps") or settings.get("epochs", 0) * run.steps_per_epoch)


def _records(run: History) -> Iterator[str]:
    read = run.summary.get("input", {})
    if skipped := read.get("records_skipped"):
        yield f"{many(skipped, 'corrupt record')} skipped; another sample took the place of each."
    if words := waiting(read.get("wait_share", 0)):
        yield f"{words.capitalize()}."


def _updates(run: History) -> Iterator[str]:
    """A rank writes a line of each step that it left out; of a job that was broken off, again."""
    steps = set()
    for path in sorted((run.folder / FOLDER).glob("rank-*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as lines:
            steps |= {step for line in lines if 0 < (step := _step(line)) <= run.steps}
        break  # all ranks leave out the same ones
    if steps:
        first = f", the first at step {min(steps)}"
        yield f"{many(len(steps), 'update')} left out, of a gradient that was not finite{first}."
    if (others := run.summary.get("skipped_updates", 0) - len(steps)) > 0:
        yield f"{many(others, 'update')} left out while the scale of the loss was found."


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0


def _slow(run: History) -> Iterator[str]:
    times = Counter((e.get("rank"), e.get("host"), e.get("phase")) for e in run.of("straggler"))
    for (rank, host, phase), number in times.most_common(8):
        yield f"Rank {rank} on {host} was slow in {phase}, named {many(number, 'time')}."
    if len(times) > 8:
        yield f"{len(times) - 8} more were slow now and then."


def _jobs(run: History) -> Iterator[str]:
    layouts: list[Any] = run.facts.get("layouts", [])
    for (_, before), (step, now) in zip(layouts, layouts[1:], strict=False):
        ranks = many(now["world_size"], "rank")
        changed = "" if now == before else f", before on {before['world_size']}"
        yield f"It went on after step {step}, on {ranks}{changed}."


def many(number: int, word: str) -> str:
    """`1 rank`, `2 ranks`"""
    return f"{number} {word}{'s' * (number != 1)}"
