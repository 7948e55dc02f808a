"""`ba-dist train` and `submit`: start a training here, or in a Slurm job."""

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from ba_dist.cli.flags import RecipeCommand, given, settings_flags, slurm_flags
from ba_dist.cli.saying import say_once
from ba_dist.cli.settings import Settings, agreed_config
from ba_dist.config import Config, layout_of


@click.command(cls=RecipeCommand)
@click.option(
    "--inject", default="", hidden=True, help="faults to test with: ba_dist/health/inject.py"
)
@click.option(
    "--dry-run", is_flag=True, help="print layout, steps, memory and learning rates; start nothing"
)
@click.option(
    "-n",
    "--ranks",
    type=click.IntRange(1),
    help="with --dry-run: for so many ranks, not those here",
)
@settings_flags
def train(
    name: str | None,
    config_file: Path | None,
    inject: str,
    dry_run: bool,
    ranks: int | None,
    **flags: Any,
) -> None:
    """Train RECIPE (`ba-dist recipes` lists them), with any of its values changed by a flag.

    \b
    ba-dist train quickstart --help           shows the values of that recipe
    ba-dist train quickstart --steps 5        a very short run on one rank
    ba-dist train my_recipes.py:longer        a function of your own that gives a Config
    ba-dist train quickstart --config my.yaml --lr 0.1
    ba-dist train quickstart --dry-run -n 4   what it would be on four ranks
    launch/mpirun.sh -n 4 -- train quickstart --multiplicity 4 --run-dir runs/first
    """
    if ranks and not dry_run:
        raise click.UsageError("--ranks is for --dry-run; launch/mpirun.sh -n starts ranks")
    config = agreed_config(Settings(name, config_file, given(flags)))
    if dry_run:
        _tell(config, ranks)
    from ba_dist import comm, runtime
    from ba_dist.health.inject import parse
    from ba_dist.run.report import short, table
    from ba_dist.training import RUN_AGAIN
    from ba_dist.training import train as run

    runtime.quiet()
    outcome = run(config, parse(inject))
    if outcome.summary is None:
        comm.leave_together(
            f"stopped on request after step {outcome.step}; the same command with"
            f" --run-dir {outcome.run_dir} goes on from there",
            RUN_AGAIN,
            sys.stdout,
        )
    if outcome.finished_before:
        say_once(f"{short(outcome.run_dir)} was finished before; nothing was trained now")
    say_once(table(outcome.summary, outcome.task, outcome.run_dir))


def _tell(config: Config, ranks: int | None) -> NoReturn:
    """Says on rank 0 what would be trained, and ends all ranks."""
    from ba_dist import comm, runtime
    from ba_dist.reports.outlook import outlook

    runtime.quiet()
    launch = comm.ranks()
    text = ""
    if launch is None or launch.rank == 0:
        text = outlook(config, ranks or (launch.world_size if launch else 1))
    comm.leave_together(text, 0, sys.stdout)


@click.command(cls=RecipeCommand)
@click.option("--site", required=True, help="a job script of slurm/: gpu, cpu, cray-xc …")
@click.option("--nodes", required=True, type=click.IntRange(1), help="nodes of the job")
@slurm_flags
@click.option("--dry-run", is_flag=True, help="print the job script and do nothing")
@settings_flags
def submit(
    name: str | None,
    config_file: Path | None,
    site: str,
    nodes: int,
    ranks_per_node: int | None,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Submit the training of RECIPE to Slurm, with the job script of a site and flags of `train`.

    The script is written to the run directory; `sbatch` takes it again by hand. A job that is
    preempted, or whose time is over, saves its state, queues again and goes on: docs/cluster.md.

    \b
    ba-dist submit quickstart --site cpu --nodes 2 --dry-run
    ba-dist submit resnet50-imagenet --site gpu --nodes 4 --time 12:00:00 --account ACCOUNT \\
        --data-dir DIR --multiplicity 4
    """
    from ba_dist.cluster import job_script
    from ba_dist.cluster import submit as slurm
    from ba_dist.run import run_dir

    wishes = {key: flags.pop(key) for key in job_script.WISHES}
    changes = given(flags)
    settings = Settings(name, config_file, changes)
    config = settings.config()
    template = slurm.template(site)
    ranks = ranks_per_node or job_script.ranks_per_node(template)
    layout = layout_of(config, nodes * ranks)
    job = job_script.Job(
        site=site,
        template=template,
        recipe=config.title,
        nodes=nodes,
        ranks_per_node=ranks,
        wishes=given(wishes),
        changes=changes,
        source=tuple(settings.words()),
        **slurm.job_paths(config.run.run_dir or run_dir.default(config.title)),
    )
    text = job_script.render(job)
    if dry_run:
        click.echo(text, nl=False)
        return
    click.echo(slurm.submit(job, text, layout))
