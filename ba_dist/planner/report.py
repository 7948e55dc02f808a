"""A plan as text and as a picture."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ba_dist.errors import UserError
from ba_dist.planner.choice import Plan
from ba_dist.planner.machine import Machine
from ba_dist.planner.prediction import Prediction, step_time
from ba_dist.planner.workload import Workload
from ba_dist.reports.columns import aligned
from ba_dist.reports.style import bar_look, look_of

_HEAD = (
    *("nodes", "M", "R", "K", "n", "steps/s", "images/s", "hours", "node-hours"),
    *("read MB/s", "opens/s", "read TB", "opens", "GB/rank", "bound by", "take"),
)
NUMBERS = slice(1, -1)  # the columns of a table that are
PARTS = ("compute", "overhead", "waiting", "allreduce", "input")


def text(works: Sequence[Workload], machine: Machine, plans: Sequence[Plan]) -> str:
    """The table, where the time of a step goes, the reasons, and what was assumed."""
    work = works[0]
    found = [plan for plan in plans if plan.best]
    lines = [
        f"{work.config.title} on {machine.name}: predicted, not measured",
        f"{work.samples:,} samples, B = {work.config.batch.batch_size},"
        f" {work.steps:,} steps; images/s are instances; n: instances of a rank",
        "",
        *aligned([_HEAD, *(_row(plan, plan.best) for plan in found if plan.best)], NUMBERS),
        "",
        *aligned(
            [("ms of a step", "", *PARTS), *(_parts(p, p.best) for p in found if p.best)], NUMBERS
        ),
        "",
    ]
    for plan in plans:
        lines += _reasons(plan)
    _, notes = step_time(work, machine)
    if machine.assumed:
        notes = [*notes, f"numbers of the machine: {', '.join(machine.assumed)}"]
    lines += ["", *(f"assumed: {note}" for note in notes)]
    lines.append("evaluation is not counted; `ba-dist calibrate` measures a machine")
    return "\n".join(lines)


def _row(plan: Plan, best: Prediction) -> tuple[str, ...]:
    layout = best.way.layout
    spread = best.steps_per_second * best.deviation
    mode = best.way.io + ("" if best.way.io == "replicate" else f", {best.way.exchange}")
    if layout.group_size == 1:
        mode = "alone"
    cells = (
        *(plan.nodes, plan.multiplicity, layout.group_size, layout.copies_per_rank),
        layout.instances_per_rank,
        f"{best.steps_per_second:.3g} ± {spread:.2g}",
        f"{best.instances_per_second:,.0f}",
        f"{best.hours:.3g}",
        f"{best.node_hours:,.4g}",
        f"{best.input.bytes_read / best.seconds / 1e6:.3g}",
        f"{best.input.opens / best.seconds:.3g}",
        f"{best.bytes_read / 1e12:.3g}",
        f"{best.opens:.3g}",
        f"{best.memory / 1e9:.3g}",
        best.bound,
        f"{mode}, microbatch {layout.microbatch}",
    )
    return tuple(map(str, cells))


def _parts(plan: Plan, best: Prediction) -> tuple[str, ...]:
    name = f"{plan.nodes} nodes, M = {plan.multiplicity}"
    return (name, "", *(f"{best.parts[part] * 1000:.1f}" for part in PARTS))


def _reasons(plan: Plan) -> list[str]:
    name = f"{plan.nodes} nodes, M = {plan.multiplicity}"
    if plan.best is None:
        return [f"{name}: no: {plan.reason}"]
    best, layout = plan.best, plan.best.way.layout
    flags = [f"--group-size {layout.group_size}", f"--microbatch {layout.microbatch}"]
    if layout.group_size > 1:
        flags.append(f"--io {best.way.io}")
        if best.way.io != "replicate":
            flags.append(f"--exchange {best.way.exchange}")
    lost = best.expected / (best.hours * 3600) - 1
    return [
        f"{name}: {' '.join(flags)}",
        f"    why: {plan.reason}",
        f"    failures: --checkpoint-every {best.checkpoint_every};"
        f" {best.expected / 3600:.3g} hours to expect ({lost:+.2%})",
        *(f"    note: {note}" for note in plan.notes),
    ]


def draw(title: str, plans: Sequence[Plan], output: Path) -> Path:
    """Steps per second with their interval, and what a step's time is spent on.

    Args:
        title: recipe and machine.
        plans: rows; those without a layout are left out.
        output: the file; its ending chooses the format.

    Raises:
        UserError: where nothing can be drawn, or the file cannot be written or is another one.
    """
    found = [(plan, plan.best) for plan in plans if plan.best]
    if not found:
        raise UserError("there is no layout to draw; the reasons are above")
    import matplotlib.pyplot as plt

    from ba_dist.reports.plots import save

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    every = dict.fromkeys(plan.multiplicity for plan, _ in found)
    for number, copies in enumerate(every):
        rows = [(plan.nodes, best) for plan, best in found if plan.multiplicity == copies]
        rates = [best.steps_per_second for _, best in rows]
        spread = [best.steps_per_second * best.deviation for _, best in rows]
        left.errorbar([n for n, _ in rows], rates, yerr=spread, capsize=4, **look_of(number),
                      label=f"M = {copies}")  # fmt: skip
    left.set(title="Steps per second", ylabel="steps/s")
    left.set_ylim(0, 1.05 * max(b.steps_per_second * (1 + b.deviation) for _, b in found))
    left.set(xlabel="nodes", xscale="log")
    nodes = sorted({plan.nodes for plan, _ in found})
    left.set_xticks(nodes, [f"{n}" for n in nodes])
    left.minorticks_off()
    left.grid(alpha=0.3)
    left.legend()
    _stack(right, found)
    handles, parts = right.get_legend_handles_labels()
    figure.legend(handles, parts, loc="outside right upper", reverse=True)  # as they lie
    figure.suptitle(title)
    mark = hashlib.sha256(title.encode()).hexdigest()[:16]
    return save(figure, output, f"ba-dist plan {mark}")


def _stack(axes: Any, found: list[tuple[Plan, Prediction]]) -> None:
    bottom = [0.0] * len(found)
    places = range(len(found))
    for number, part in enumerate(PARTS):
        height = [best.parts[part] * 1000 for _, best in found]
        axes.bar(places, height, bottom=bottom, label=part, **bar_look(number))
        bottom = [low + high for low, high in zip(bottom, height, strict=True)]
    names = [f"{plan.nodes}\nM={plan.multiplicity}" for plan, _ in found]
    axes.set_xticks(places, names, fontsize=8)
    axes.set(title="What a step's time is spent on", ylabel="ms a step", xlabel="nodes")
