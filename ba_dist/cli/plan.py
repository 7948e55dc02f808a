"""`ba-dist plan`: what a run costs on a machine that is not here."""

from pathlib import Path
from typing import Any

import click

from ba_dist.cli.flags import ListOf, RecipeCommand, given, settings_flags
from ba_dist.cli.settings import Settings
from ba_dist.errors import ConfigError

_NUMBERS = ListOf(click.IntRange(1))


@click.command(cls=RecipeCommand)
@click.option(
    "--machine",
    "machine_file",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="machine file (TOML), or the name of one of slurm/machines",
)
@click.option("--nodes", type=_NUMBERS, help="numbers of nodes, such as 16,40,128,512")
@click.option(
    "--shards",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="files that hold all records; 0: each record is a file",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="also draw it, as FILE.png or FILE.svg"
)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    help="in place of RECIPE, a finished run: predicted beside seen",
)
@settings_flags
def plan(
    name: str | None,
    config_file: Path | None,
    machine_file: Path,
    nodes: tuple[int, ...] | None,
    shards: int,
    output: Path | None,
    run: Path | None,
    **flags: Any,
) -> None:
    """Predict what RECIPE costs on a machine, and which layout to take. Nothing is started.

    Steps per second, hours, memory, what the filesystem sees, and what bounds a step, for each
    number of nodes and of copies. --multiplicity takes several values here.

    \b
    ba-dist plan resnet50-imagenet --machine cray-xc50 --nodes 16,40 --multiplicity 1,4,10
    ba-dist plan resnet50-imagenet-large --machine dgx-a100 --nodes 16,64 --output plan.png
    ba-dist plan --run runs/first --machine here.toml
    """
    from ba_dist.cluster.home import HOME
    from ba_dist.planner import plan as choose
    from ba_dist.planner import read_machine, report, seen, workload_of

    machine = read_machine(_found(machine_file, HOME / "slurm" / "machines"))
    changes = given(flags)
    if run is not None:
        _check_alone(RECIPE=name, nodes=nodes, config=config_file, output=output, **changes)
        click.echo(seen.compare(run, machine, shards))
        return
    if nodes is None:
        raise click.UsageError("--nodes is missing: numbers of nodes, such as 16,40,128,512")
    copies = changes.pop("multiplicity", None)
    settings = [
        Settings(name, config_file, {**changes, **({} if m is None else {"multiplicity": m})})
        for m in (copies or (None,))
    ]
    works = [workload_of(setting.config(), shards=shards) for setting in settings]
    plans = [choose(work, machine, n) for n in nodes for work in works]
    click.echo(report.text(works, machine, plans))
    if output is not None:
        title = f"{works[0].config.title} on {machine.name} (predicted)"
        click.echo(report.draw(title, plans, output))


def _check_alone(**others: Any) -> None:
    """What a finished run was is in its files: nothing else may say it."""
    if found := list(given(others)):
        words = [name if name.isupper() else "--" + name.replace("_", "-") for name in found]
        raise click.UsageError(
            f"--run compares a finished run as it was: leave out {', '.join(words)}"
        )


def _found(path: Path, folder: Path) -> Path:
    """The file, or that of a name in slurm/machines."""
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    known = {file.stem: file for file in folder.glob("*.toml")}
    if path.name not in known:
        raise ConfigError(
            f"there is no machine {path.name!r}; choose from {', '.join(sorted(known))}, or give a"
            " file, which `ba-dist calibrate` writes"
        )
    return known[path.name]


for _param in plan.params:
    if _param.name == "multiplicity":
        _param.type = _NUMBERS
