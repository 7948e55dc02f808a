"""`ba-dist sweep`: every combination of some values, and a table of what came of them."""

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ba_dist.cli import launch
from ba_dist.cli.flags import RecipeCommand, given, settings_flags, slurm_flags
from ba_dist.cli.settings import Settings

if TYPE_CHECKING:  # brings numpy
    from ba_dist.sweep.grid import Point


@click.command(cls=RecipeCommand)
@click.option(
    "--output", type=click.Path(path_type=Path), help="folder of the sweep; default sweeps/RECIPE"
)
@click.option("-n", "--ranks", type=click.IntRange(1), help="of each run, at most")
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    help="only print the table of the sweep there",
)
@click.option(
    "--dry-run", is_flag=True, help="print the commands, or the job script; start nothing"
)
@click.option("--slurm", "site", metavar="SITE", help="a job array with this script of slurm/")
@click.option("--nodes", type=click.IntRange(1), help="with --slurm: nodes of each run")
@slurm_flags
@partial(settings_flags, lists=True)
def sweep(
    name: str | None,
    config_file: Path | None,
    output: Path | None,
    ranks: int | None,
    table: Path | None,
    dry_run: bool,
    site: str | None,
    nodes: int | None,
    ranks_per_node: int | None,
    smoke: bool | None,
    **flags: Any,
) -> None:
    """Train RECIPE once for every combination of the values given, then print a table.

    Every flag of `train` takes several values: with commas between them, or given several times
    (--lr, --data-dir, --init-from and --flip alone in the second way). Runs that would be the same
    are trained once. The same command goes on where the last one stopped: what is finished stays,
    what was broken off continues from its checkpoint. One that fails is named, and the others go
    on; the exit status is then 1, and 75 after Ctrl-C.

    \b
    ba-dist sweep quickstart --baseline fixed-steps,fixed-samples,none --seeds 0,1,2 -n 2
    ba-dist sweep quickstart --multiplicity 1,2,4 --lr-scale 1,2 -n 4 --output sweeps/first
    ba-dist sweep --table sweeps/first
    ba-dist sweep resnet44-cifar10 --seeds 0,1,2 --slurm gpu --nodes 10 --account ACCOUNT

    A run is started on the most ranks up to --ranks that leave its ghost batches whole: a baseline
    of B = 64 on two, beside M = 40 copies on forty.

    Each run is a folder of --output, beside sweep.json, logs/ and, at the end, table.txt, table.md
    and table.json: mean and deviation over the seeds.
    """
    from ba_dist.cluster import job_script

    wishes = given({key: flags.pop(key) for key in job_script.WISHES})
    if table is not None:
        _only_table(table)
        return
    if bool(site) != bool(nodes) or (ranks and site) or ((wishes or ranks_per_node) and not site):
        raise click.UsageError(
            "give --ranks for runs on this machine, or --slurm SITE with --nodes and the flags of"
            " a job"
        )
    if smoke is not None:
        flags["smoke"] = (smoke,)
    fixed, axes = _divided(flags)
    base = Settings(name, config_file, fixed)
    points = _points(base, axes)
    words = _words(base, points)
    folder = output or Path("sweeps") / base.config().recipe
    source = [*base.words(), *job_script.train_flags(fixed)]
    if site and nodes:
        wishes |= {"ranks_per_node": ranks_per_node}
        _submit(folder, source, points, words, site=site, nodes=nodes, wishes=wishes, dry=dry_run)
        return
    counts = _check(points, ranks)
    calls = {
        run: _call(counts.get(run), [*line, f"--run-dir={folder / run}"])
        for run, line in words.items()
    }
    if dry_run:
        for line, _ in calls.values():
            click.echo(shlex.join(line))
        return
    _run(folder, source, points, calls)


def _divided(flags: dict[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Flags with one value, and those with several; nothing of those that were not given."""
    values = {
        key: list(dict.fromkeys(v for part in parts for v in _list(part)))
        for key, parts in flags.items()
        if parts
    }
    order = sorted(values, key=lambda key: (key != "baseline", key == "seed"))
    fixed = {key: values[key][0] for key in order if len(values[key]) == 1}
    return fixed, {key: values[key] for key in order if len(values[key]) > 1}


def _list(part: Any) -> Sequence[Any]:
    """A flag without a value was given as often as it has values."""
    return part if isinstance(part, tuple) else (part,)


def _points(base: Settings, axes: dict[str, list[Any]]) -> "list[Point]":
    """All points; what one of them would be refused with is told before any is run."""
    from ba_dist.errors import ConfigError
    from ba_dist.sweep.grid import combinations, points, run_name

    values = combinations(axes)
    configs = []
    for mine in values:
        try:
            configs.append(Settings(base.name, base.file, {**base.flags, **mine}).config())
        except ConfigError as error:
            raise ConfigError(f"{run_name(mine)}: {error}") from None
    return points(values, configs)


def _check(
    points: "list[Point]", ranks: int | None, *, all_of_them: bool = False
) -> dict[str, int]:
    """Looks at all that can be told before data is opened; run → ranks, where they are limited.

    A task of Slurm has all of them, whether its run can be divided so or not.
    """
    from ba_dist import experiment
    from ba_dist.config import layout_of
    from ba_dist.errors import ConfigError
    from ba_dist.sweep.grid import ranks_within

    counts = {}
    for point in points:
        try:
            experiment.check(point.config)
            if ranks and all_of_them:
                layout_of(point.config, ranks)
            if ranks:
                counts[point.run] = ranks_within(point.config, ranks)
        except ConfigError as error:
            raise ConfigError(f"{point.run}: {error}") from None
    return counts


def _words(base: Settings, points: "list[Point]") -> dict[str, list[str]]:
    """Run → the words of `ba-dist` that train it, without its folder."""
    from ba_dist.cluster.job_script import train_flags

    found: dict[str, list[str]] = {}
    for point in points:
        flags = {**base.flags, **point.values}
        mine = Settings(base.name, base.file, flags)
        found.setdefault(point.run, [*mine.words(), *train_flags(flags)])
    return found


def _call(ranks: int | None, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment that train on so many ranks."""
    count = ["-n", str(ranks)] if ranks else []
    return launch.call(*count, "--", "train", *words)


def _run(
    folder: Path,
    source: list[str],
    points: "list[Point]",
    calls: dict[str, tuple[list[str], dict[str, str]]],
) -> None:
    from ba_dist.sweep import plan, runs, table

    made = plan.plan_of(source, points)
    plan.keep(folder, made)
    outcome = runs.Runner(folder, click.echo).all(calls)
    click.echo(f"\n{table.write(folder, plan.read(folder))}")
    for run, why in outcome.failed.items():
        click.echo(f"failed: {run}: {why}", err=True)
    if outcome.stopped:
        click.echo("stopped on request; the same command goes on from there", err=True)
    sys.exit(75 if outcome.stopped else 1 if outcome.failed else 0)


def _only_table(folder: Path) -> None:
    from ba_dist.sweep import plan, table

    click.echo(table.write(folder, plan.read(folder)))


def _submit(
    folder: Path,
    source: list[str],
    points: "list[Point]",
    words: dict[str, list[str]],
    *,
    site: str,
    nodes: int,
    wishes: dict[str, Any],
    dry: bool,
) -> None:
    """Submits a job array with a task for each run that is not finished."""
    from ba_dist.cluster import job_script
    from ba_dist.cluster import submit as slurm
    from ba_dist.sweep import plan, runs

    template = slurm.template(site)
    ranks = wishes.pop("ranks_per_node") or job_script.ranks_per_node(template)
    counts = _check(points, nodes * ranks, all_of_them=True)
    for run in sorted(run for run, count in counts.items() if count < nodes * ranks):
        click.echo(
            f"note: {run} has whole ghost batches on {counts[run]} ranks, not on {nodes * ranks};"
            " its numbers differ from those of another layout",
            err=True,
        )
    waiting = [run for run in words if not runs.finished(folder / run)]
    if not waiting:
        click.echo(f"all {len(words)} runs of {folder} are finished; see `ba-dist sweep --table`")
        return
    place = folder.absolute()
    job = job_script.Job(
        site=site,
        template=template,
        recipe=points[0].config.recipe,
        nodes=nodes,
        ranks_per_node=ranks,
        wishes=wishes,
        changes={},
        source=(),
        tasks=tuple((*words[run], f"--run-dir={place / run}") for run in waiting),
        **slurm.job_paths(str(place)),
    )
    text = job_script.render(job)
    if dry:
        click.echo(text, nl=False)
        return
    plan.keep(folder, plan.plan_of(source, points))
    number = slurm.write_and_submit(job, text)
    click.echo(f"submitted job array {number}: {len(waiting)} of {len(words)} runs; its place:")
    click.echo(f"squeue -j {number}; afterwards `ba-dist sweep --table {folder}`")
