"""The texts of a run for people: what begins, how an epoch went, what came of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ba_dist import models, runtime
from ba_dist.config import Config, batch_ratio
from ba_dist.data.catalog import Dataset
from ba_dist.rules import schedules
from ba_dist.rules.layout import Layout
from ba_dist.tasks import Task

REPORT = "report.html"  # of a run directory, for a browser

# Share of the time waiting for input from which the end of a run and its report say so.
_NOTABLE_WAIT = 0.1


def opening(config: Config, layout: Layout, dataset: Dataset, total_steps: int) -> list[str]:
    """What is said before the first step."""
    dropped = len(dataset.train) % layout.batch_size
    lines = [
        f"{config.title}: {config.model.model} on {len(dataset.train)} samples of"
        f" {dataset.info.name} ({dataset.origin}), {total_steps} steps",
        f"{layout.world_size} ranks = {layout.groups} groups of {layout.group_size}; a step is"
        f" {layout.batch_size} samples x {layout.multiplicity} copies; a rank holds"
        f" {layout.group_batch} samples x {layout.copies_per_rank} copies",
    ]
    if dropped:
        lines.append(
            f"the last {dropped} samples of each epoch's order do not fill a batch: dropped"
        )
    normalised = models.network(config.model.model).normalised
    notices = [
        layout.notice() if normalised else None,
        runtime.notice(config.run.precision),
        _scaled(config),
    ]
    if config.run.steps is None:
        notices.append(schedules.notice(config.optimizer.lr, config.run.epochs))
    lines += [f"note: {notice}" for notice in notices if notice]
    return lines


def _scaled(config: Config) -> str | None:
    """How the rates follow from the batch, where they do."""
    rule = config.optimizer
    if not isinstance(rule.lr_scale, str):
        return None
    ratio = batch_ratio(config)
    factor = schedules.scale_factor(rule.lr_scale, ratio)
    return (
        f"rates are multiplied by {factor:.4g}: --lr-scale {rule.lr_scale}, {ratio:.4g} times"
        + (" the batch that --lr was written for")
    )


def step_parts(values: Mapping[str, float], task: Task, speed: float) -> list[str]:
    """How training goes, beside the bar: what matters most comes first.

    Args:
        values: loss and metrics of the step.
        task: says which metrics there are, and how they look.
        speed: units a second.
    """
    metrics = [f"{name} {brief(values[name], form):>6}" for name, form in task.metrics.items()]
    rate = brief(speed, ".0f" if speed >= 100 else ".2g")
    return [f"loss {brief(values['loss'], '.3f')}", *metrics, f"{rate} {task.unit}/s"]


def epoch_line(values: Mapping[str, Any], task: Task, epochs: int) -> str:
    """What is said after an epoch."""
    forms = {"loss": ".3f", **task.metrics, **task.validation}
    parts = [
        f"{name} {brief(values[name], form)}" for name, form in forms.items() if name in values
    ]
    return "  ".join([f"epoch {values['epoch'] + 1}/{epochs}", *parts])


def table(result: dict[str, Any], task: Task, run_dir: Path) -> str:
    """The short table at the end of a run."""
    groups, size = result["groups"], result["group_size"]
    read = result["input"]
    rows = {
        "recipe": result["recipe"],
        **_derived(result),
        "layout": f"{result['world_size']} ranks = {groups} groups of {size},"
        f" {result['copies_per_rank']} copies per rank",
        "trained": f"{result['steps']} steps of {result['batch_size']} samples x"
        f" {result['multiplicity']} copies ({result['epochs']:.4g} epochs)",
        task.headline: _shown(result[task.judged_by], _form(task)),
        **_best(result, _form(task)),
        f"{task.unit} per second": _speed(result[f"{task.unit}_per_second"]),
        "records read": f"{read['records_read']} ({read['mode']}) for {result['samples']} samples"
        f" and {result['instances']} instances",
        "seconds of training": _shown(result["seconds"], ".1f"),
        "run directory": str(short(run_dir)),
    }
    if (run_dir / REPORT).is_file():
        rows["report"] = str(short(run_dir / REPORT))
    if read["records_skipped"]:
        rows["corrupt records"] = f"{read['records_skipped']}, another sample in the place of each"
    if hint := waiting(read["wait_share"]):
        rows["hint"] = hint
    width = max(map(len, rows))
    return "\n".join(["", *(f"  {name:<{width}}  {text}" for name, text in rows.items()), ""])


def waiting(share: float) -> str:
    """What is said of a share of the time that training waited for input; empty of a small one."""
    if share <= _NOTABLE_WAIT:
        return ""
    return (
        f"training waited for input {share:.0%} of the time; more cores a rank, --io-threads or"
        " faster storage would speed it up"
    )


def _speed(value: float | None) -> str:
    """Units a second; summary.json has 0 where no step came after the warm-up."""
    return f"{value:.0f}" if value else "–"


def brief(value: float, form: str) -> str:
    """A number in this format, or where that takes more than seven characters, as 1.2e+09."""
    text = f"{value:{form}}"
    return text if len(text) <= 7 else f"{value:.1e}"


def _derived(result: Mapping[str, Any]) -> dict[str, str]:
    """Of a run that is not the recipe as it stands."""
    baseline = result.get("baseline", "none")
    small = {"smoke": "a few samples for a few steps: no accuracy"} if result.get("smoke") else {}
    return {**({} if baseline == "none" else {"baseline": baseline}), **small}


def _form(task: Task) -> str:
    """How the number that a run is judged by looks: as in its table, and shares more exactly."""
    form = task.validation[task.judged_by]
    return ".2%" if "%" in form else form


def _best(result: Mapping[str, Any], form: str) -> dict[str, str]:
    """Of a run with --keep-best whose result could be told at least once."""
    if result.get("best") is None:
        return {}
    return {"best checkpoint": f"{result['best']:{form}}, of step {result['best_step']}"}


def _shown(value: float | None, form: str) -> str:
    """A number of summary.json, where one that was not finite is null."""
    return "not finite" if value is None else f"{value:{form}}"


def short(path: Path) -> Path:
    """A path from the current folder where it lies in it, as a person would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
