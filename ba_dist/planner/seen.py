"""A finished run beside what was predicted of it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, stdev
from typing import Any

from ba_dist.config import Config, from_dict, layout_of
from ba_dist.errors import UserError
from ba_dist.planner.machine import Machine
from ba_dist.planner.prediction import Prediction, Way, predict, step_time
from ba_dist.planner.report import NUMBERS
from ba_dist.planner.workload import Workload, workload_of
from ba_dist.reports.columns import aligned
from ba_dist.rules.layout import Layout
from ba_dist.run import run_dir

Row = tuple[str, float, float | None]


@dataclass(frozen=True)
class _Finished:
    """What the files of a finished run say.

    Args:
        config: of the run.
        layout: of its last job, with the microbatch that it chose.
        exchange: encoded or decoded, what groups exchanged.
        hosts: that it ran on; 0 where it is not known.
        samples: to train on.
        steps: of the run.
        seconds: of them.
        counted: steps of the last job, whose counters these are.
        read: what it counted.
        rate: instances a second of the last job; None or 0 where it is not known.
    """

    config: Config
    layout: Layout
    exchange: str
    hosts: int
    samples: int
    steps: int
    seconds: float
    counted: int
    read: dict[str, Any]
    rate: float | None


def compare(run: Path, machine: Machine, shards: int = 0) -> str:
    """Predicted and seen: steps per second, waiting for input, bytes, records, seconds.

    Args:
        run: the run directory of a finished run.
        machine: it ran on.
        shards: files that hold its records; 0 where each record is a file.

    Raises:
        UserError: when the run is not finished, is no run, or cannot be predicted.
    """
    done = _finished(run)
    work = workload_of(done.config, done.samples, shards)
    world = done.layout.world_size
    nodes = done.hosts or -(-world // machine.node.ranks)
    ranks, notes = -(-world // nodes), step_time(work, machine)[1]
    if ranks != machine.node.ranks:
        notes.append(
            f"the run had {ranks} ranks a node, the machine has {machine.node.ranks}: cores, memory"
            " and step times of a rank are taken as they are there"
        )
    machine = replace(machine, node=replace(machine.node, ranks=ranks))
    way = Way(done.layout, done.config.placement.io, done.exchange, work.buckets)
    made = predict(work, machine, nodes, way)
    cells = [
        (name, _form(a), _form(b), _ratio(a, b)) for name, a, b in _rows(run, done, made, work)
    ]
    table = aligned([("", "predicted", "seen", "seen / predicted"), *cells], NUMBERS)
    head = f"{run} ({done.config.title}, {world} ranks) on {machine.name}; bound by {made.bound}"
    return "\n".join([head, "", *table, *(f"note: {note}" for note in notes)])


def _finished(run: Path) -> _Finished:
    facts = run_dir.read_json(run / "config.json")
    if not (run / "summary.json").exists():
        raise UserError(f"{run} is not finished: it has no summary.json")
    summary = run_dir.read_json(run / "summary.json")
    try:
        config = from_dict(facts["config"])
        layout = layout_of(config, summary["world_size"])
        samples = facts["samples"]
        read, steps, seconds = (summary[name] for name in ("input", "steps", "seconds"))
    except KeyError as error:
        raise UserError(f"{run}: its files do not say {error}") from None
    if microbatch := facts.get("layout", {}).get("microbatch"):
        layout = replace(layout, microbatch=microbatch)
    exchange = facts.get("exchange", {}).get("way", config.placement.exchange)
    if exchange == "auto":  # there was nothing to choose
        exchange = "decoded" if config.placement.io == "cooperative" else "encoded"
    began = facts.get("layouts", [[0]])[-1][0]  # where the last job went on
    return _Finished(
        config, layout, exchange, len(set(facts.get("hosts", []))), samples, steps, seconds,
        max(1, steps - began), read, summary.get("images_per_second"),
    )  # fmt: skip


def _rows(run: Path, done: _Finished, made: Prediction, work: Workload) -> list[Row]:
    """(what, predicted, seen), each predicted as a run counts it."""
    instances = done.layout.batch_size * done.layout.multiplicity
    speed, spread, waited = _speeds(run, instances)
    if done.rate:
        speed = done.rate / instances
    # Counters see what ranks ask for: the page cache is behind them.
    records, bytes_read, exchanged = (
        done.read[name] / done.counted for name in ("records_read", "bytes_read", "bytes_exchanged")
    )
    every = done.config.run.log_every  # a rate of metrics.jsonl is the mean of so many steps
    deviation = made.steps_per_second * made.deviation / math.sqrt(every)
    asked = made.input.records * work.record / 1e6
    return [
        ("steps per second", made.steps_per_second, speed),
        (f"  deviation of the mean of {every} step(s)", deviation, spread),
        ("images per second", made.instances_per_second, done.rate),
        ("seconds a step that training waited for input", made.parts["input"], waited),
        ("seconds of all steps", done.steps * made.seconds, done.seconds),
        ("records read a step", made.input.records, records),
        ("MB read a step", asked, bytes_read / 1e6),
        ("MB exchanged a step", made.input.bytes_sent / 1e6, exchanged / 1e6),
    ]


def _speeds(run: Path, instances: int) -> tuple[float | None, float | None, float | None]:
    """(steps a second, their deviation, seconds of waiting for input) of metrics.jsonl."""
    events = list(_steps(run / "metrics.jsonl"))[1:]  # the first one has the graph's building
    rates = [e["images_per_second"] / instances for e in events if e.get("images_per_second")]
    waits = [e["input_wait"] for e in events if e.get("input_wait") is not None]
    return (
        median(rates) if rates else None,
        stdev(rates) if len(rates) > 1 else None,
        median(waits) if waits else None,
    )


def _steps(path: Path) -> Iterable[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        event = run_dir.entry_of(line) or {}
        if event.get("event") == "step":
            yield event


def _form(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _ratio(predicted: float, seen: float | None) -> str:
    return "-" if not seen or not predicted else f"{seen / predicted:.2f}"
