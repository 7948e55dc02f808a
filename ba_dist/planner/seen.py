"""A finished run beside what was predicted of it."""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median, stdev
from typing import Any

from ba_dist.config import from_dict, layout_of
from ba_dist.errors import UserError
from ba_dist.planner.machine import Machine
from ba_dist.planner.prediction import Way, predict
from ba_dist.planner.report import aligned
from ba_dist.planner.workload import workload_of
from ba_dist.run import run_dir


def compare(run: Path, machine: Machine) -> str:
    """Predicted and seen: steps per second, waiting for input, bytes, opens, hours.

    Args:
        run: the run directory of a finished run.
        machine: it ran on.

    Raises:
        UserError: when the run is not finished, is no run, or cannot be predicted.
    """
    facts = run_dir.read_json(run / "config.json")
    if not (run / "summary.json").exists():
        raise UserError(f"{run} is not finished: it has no summary.json")
    summary = run_dir.read_json(run / "summary.json")
    try:
        config = from_dict(facts["config"])
        world, ranks = summary["world_size"], machine.node.ranks
        work = workload_of(config, facts["samples"])
        read = summary["input"]
    except KeyError as error:
        raise UserError(f"{run}: its files do not say {error}") from None
    nodes = max(1, len(set(facts.get("hosts", []))))
    notes = []
    if nodes * ranks != world:
        notes.append(
            f"the run had {world} ranks on {nodes} host(s), the machine has {ranks} ranks a node;"
            f" predicted for {-(-world // ranks)} nodes"
        )
        nodes = -(-world // ranks)
    layout = _as_run(config, facts, world)
    exchange = config.placement.exchange
    if exchange == "auto":
        exchange = "decoded" if config.placement.io == "cooperative" else "encoded"
    made = predict(work, machine, nodes, Way(layout, config.placement.io, exchange, work.buckets))
    speed, spread, waited = _speeds(run, layout.batch_size * layout.multiplicity)
    whole = summary.get("images_per_second")
    if whole:
        speed = whole / (layout.batch_size * layout.multiplicity)
    steps = summary["steps"]
    rows: list[tuple[str, float, float | None]] = [
        ("steps per second", made.steps_per_second, speed),
        ("  deviation", made.steps_per_second * made.deviation, spread),
        ("images per second", made.instances_per_second, whole),
        ("seconds a step that training waited for input", made.parts["input"], waited),
        ("seconds of all steps", steps * made.seconds, summary["seconds"]),
        ("records read a step", made.input.bytes_read / max(work.record, 1),
         read["records_read"] / steps if work.stored else 0.0),
        ("MB read from storage a step", made.input.bytes_read / 1e6,
         read["bytes_read"] / steps / 1e6 if work.stored else 0.0),
        ("MB exchanged a step", made.input.bytes_sent / 1e6, read["bytes_exchanged"] / steps / 1e6),
    ]  # fmt: skip
    cells = [(name, _form(a), _form(b), _ratio(a, b)) for name, a, b in rows]
    table = aligned([("", "predicted", "seen", "seen / predicted"), *cells])
    head = f"{run} ({config.title}, {world} ranks) on {machine.name}; bound by {made.bound}"
    return "\n".join([head, "", *table, *(f"note: {note}" for note in notes)])


def _as_run(config: Any, facts: dict[str, Any], world: int) -> Any:
    """The layout as the run had it, with the microbatch that it chose."""
    from dataclasses import replace

    layout = layout_of(config, world)
    microbatch = facts.get("layout", {}).get("microbatch")
    return replace(layout, microbatch=microbatch) if microbatch else layout


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
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("event") == "step":
            yield event


def _form(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _ratio(predicted: float, seen: float | None) -> str:
    return "-" if not seen or not predicted else f"{seen / predicted:.2f}"
