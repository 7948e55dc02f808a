"""The facts of a run: config.json at its beginning, summary.json at its end."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ba_dist import models, runtime
from ba_dist.comm import Comm
from ba_dist.config import COMPUTATION, PARTS, Config, computed_part, from_dict, to_dict
from ba_dist.data.catalog import Dataset, digest
from ba_dist.data.group.choice import Exchange
from ba_dist.recipes import RECIPES, recipe
from ba_dist.rules.layout import Layout
from ba_dist.rules.plan import Plan
from ba_dist.run import run_dir
from ba_dist.run.report import opening
from ba_dist.storage import whole_file
from ba_dist.tasks import Task

Layouts = list[list[Any]]


def identity(
    config: Config, layout: Layout, dataset: Dataset, weights: str | None = None
) -> dict[str, Any]:
    """What makes it this run, as its checkpoints hold it.

    Args:
        config: of the run.
        layout: of the ranks.
        dataset: that was opened.
        weights: digest of those that it starts from, where they come from a file.
    """
    computed = computed_part(config, layout)
    computed["model"]["init_from"] = weights
    if not models.network(config.model.model).normalised:
        del computed["batch"]["ghost_batch_size"]  # it may differ from layout to layout
    data = {"samples": len(dataset.train), "digest": digest(dataset.train)}
    if words := dataset.info.vocabulary_digest:
        data["vocabulary"] = words
    return {"computation": COMPUTATION, "config": computed, "data": data}


def describe(
    folder: Path,
    config: Config,
    layout: Layout,
    *,
    dataset: Dataset,
    task: Task,
    plan: Plan,
    done: int,
    comm: Comm,
    exchange: Exchange,
) -> None:
    """Writes config.json and says once what is about to run, both on rank 0.

    The summary of an earlier job, which was told to do fewer steps, goes: the run goes on.

    Args:
        folder: the run directory.
        config: of the run.
        layout: of the ranks.
        dataset: that was opened.
        task: of the run.
        plan: of the steps.
        done: steps that an earlier job has done.
        comm: the world.
        exchange: what the lanes of a group give each other.
    """
    hosts = comm.hosts  # collective when it is first asked for
    if comm.rank != 0:
        return
    (folder / "summary.json").unlink(missing_ok=True)
    path = folder / "config.json"
    layouts = add_layout(path, done, layout)
    known = facts(config, dataset, layouts, steps_per_epoch=plan.steps_per_epoch, hosts=hosts)
    known |= {"exchange": dataclasses.asdict(exchange), "judged": judged(task)}
    run_dir.write_json(path, known)
    for name, content in dataset.info.files().items():
        whole_file.write(folder / name, content)
    for line in opening(config, layout, dataset, plan.total_steps):
        print(line, flush=True)
    if line := exchange.text():
        print(line, flush=True)
    if done:
        print(f"going on at step {done} of {plan.total_steps}", flush=True)


def facts(
    config: Config, dataset: Dataset, layouts: Layouts, *, steps_per_epoch: int, hosts: list[str]
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
            "info": dataset.info.stored(),
        },
        "versions": runtime.versions(),
        "hosts": hosts,
        "class_names": list(getattr(dataset.info, "class_names", ())),
        # Where a network of somebody's own is found again.
        "folder": str(Path.cwd()),
    }


def judged(task: Task) -> dict[str, Any]:
    """How the run is judged, for those who compare it with others: `by`, less is better, words."""
    return {
        "by": task.judged_by,
        "less_is_better": task.less_is_better,
        "headline": task.headline,
        "unit": task.unit,
    }


def settings(config: Config, layout: Layout) -> dict[str, Any]:
    """Name → value of all that is computed, and of what else is not as the recipe has it.

    Args:
        config: of the run.
        layout: of its ranks.
    """
    named = recipe(config.recipe) if config.recipe in RECIPES else Config(config.recipe)
    usual, mine = (
        {k: v for part in PARTS for k, v in to_dict(c)[part].items()} for c in (named, config)
    )
    found = {k: v for part in computed_part(config, layout).values() for k, v in part.items()}
    found |= {name: value for name, value in mine.items() if value != usual[name]}
    made = {"recipe": config.recipe, "baseline": config.baseline}
    return {**made, "ranks": layout.world_size, **found}


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
        "baseline": config.baseline,
        "smoke": config.smoke,
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


def load_config(folder: Path) -> tuple[Config, dict[str, Any]]:
    """The configuration of a run, and everything else in its config.json."""
    facts = run_dir.read_json(folder / "config.json")
    return from_dict(facts.get("config", {})), facts
