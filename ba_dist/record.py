"""What a run writes down: the facts in config.json, the trace, the summary."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ba_dist import run_dir, runtime
from ba_dist.config import Config, from_dict, to_dict
from ba_dist.data.catalog import Dataset, digest
from ba_dist.topology import Layout

Layouts = list[list[Any]]


def facts(
    config: Config, dataset: Dataset, layouts: Layouts, steps_per_epoch: int, hosts: list[str]
) -> dict[str, Any]:
    """What config.json holds.

    Args:
        config: with everything filled in.
        dataset: that was opened.
        layouts: [first step, layout] of each job of the run; ranks may change when it goes on.
        steps_per_epoch: N // B.
        hosts: of the ranks, in order.
    """
    return {
        "config": to_dict(config),
        "layout": layouts[-1][1],
        "layouts": layouts,
        "samples": len(dataset.train),
        "steps_per_epoch": steps_per_epoch,
        "data": {
            "origin": dataset.origin,
            "train_digest": digest(dataset.train),
            "info": dataclasses.asdict(dataset.info),
        },
        "versions": runtime.versions(),
        "hosts": hosts,
    }


def add_layout(path: Path, step: int, layout: Layout) -> Layouts:
    """The layouts of the run's earlier jobs, from its config.json, and the one from `step` on."""
    earlier: Layouts = []
    if step and path.exists():
        earlier = json.loads(path.read_text()).get("layouts", [])
    return [
        *([first, at] for first, at in earlier if first < step),
        [step, dataclasses.asdict(layout)],
    ]


def summary(
    config: Config, layout: Layout, steps: int, steps_per_epoch: int, **results: Any
) -> dict[str, Any]:
    """What summary.json holds: sizes and counts, then `results` as they are."""
    samples = steps * layout.batch_size
    return {
        "recipe": config.recipe,
        "world_size": layout.world_size,
        "multiplicity": layout.multiplicity,
        "group_size": layout.group_size,
        "copies_per_rank": layout.copies_per_rank,
        "groups": layout.groups,
        "batch_size": layout.batch_size,
        "steps": steps,
        "epochs": steps / steps_per_epoch,
        "samples": samples,
        "instances": samples * layout.multiplicity,
        **results,
    }


def trace_path(folder: Path, rank: int) -> Path:
    """Where a rank writes its trace."""
    return folder / "trace" / f"rank-{rank:05d}.jsonl"


@contextmanager
def tracer(path: Path | None, group: int, lane: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes down what a batch holds; it does nothing without a path."""
    if path is None:
        yield lambda batch: None
        return
    from ba_dist.data.pipeline import trace_entry

    path.parent.mkdir(parents=True, exist_ok=True)
    # Line by line, so that the trace is never behind a checkpoint.
    with path.open("a", buffering=1) as file:
        yield lambda batch: print(json.dumps(trace_entry(batch, group, lane)), file=file)


def load_config(folder: Path) -> tuple[Config, dict[str, Any]]:
    """The configuration of a run, and everything else in its config.json."""
    facts = run_dir.read_json(folder / "config.json")
    return from_dict(facts.get("config", {})), facts
