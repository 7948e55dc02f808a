"""What a run writes down: the facts in config.json, the trace, the summary."""

import dataclasses
import json
from pathlib import Path
from typing import Any, TextIO

from ba_dist import runtime
from ba_dist.config import COMPUTATION, Config, from_dict, to_dict
from ba_dist.data.catalog import Dataset, digest
from ba_dist.rules.layout import Layout
from ba_dist.run import run_dir

Layouts = list[list[Any]]
_RANKS = "rank-*.jsonl"


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
        "computation": COMPUTATION,
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


class Trace:
    """What one rank trained on, a line a step, and the digests of its weights in between.

    Args:
        path: of the file; None writes nothing.
        group: of the rank.
        lane: of the rank.
    """

    def __init__(self, path: Path | None, group: int, lane: int):
        self._file: TextIO | None = None
        self._group, self._lane = group, lane
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Line by line, so that the trace is never behind a checkpoint.
            self._file = path.open("a", buffering=1)

    def step(self, batch: dict[str, Any]) -> None:
        """The instances of a batch of the pipeline."""
        if self._file is not None:
            from ba_dist.data.pipeline import trace_entry

            print(json.dumps(trace_entry(batch, self._group, self._lane)), file=self._file)

    def weights(self, step: int, digest: str) -> None:
        """The digest of everything that is trained, after so many steps."""
        if self._file is not None:
            print(json.dumps({"weights_after": step, "sha256": digest}), file=self._file)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def cut_back_traces(folder: Path, steps: int, rank: int, world_size: int) -> None:
    """Drops what a resumed run will write again; each rank cuts the files of its number and more.

    A job before may have had more ranks than this one: file n is cut by rank n mod world_size.
    """
    for path in (*(folder / "trace").glob(_RANKS), *(folder / "nonfinite").glob(_RANKS)):
        number = path.stem.removeprefix("rank-")
        if not number.isdecimal() or int(number) % world_size != rank:
            continue
        if steps == 0:
            path.unlink()
        else:
            run_dir.cut_back(path, steps)


def load_config(folder: Path) -> tuple[Config, dict[str, Any]]:
    """The configuration of a run, and everything else in its config.json."""
    facts = run_dir.read_json(folder / "config.json")
    return from_dict(facts.get("config", {})), facts
