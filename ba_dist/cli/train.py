"""`ba-dist train` and `submit`: start a training here, or in a Slurm job."""

import sys
from typing import Any

import click

from ba_dist.cli.flags import RecipeCommand, config_flags, given
from ba_dist.cli.saying import say_once
from ba_dist.config import layout_of, override
from ba_dist.recipes import recipe


@click.command(cls=RecipeCommand)
@click.argument("name", metavar="RECIPE")
@click.option(
    "--inject", default="", hidden=True, help="faults to test with: ba_dist/health/inject.py"
)
@config_flags
def train(name: str, inject: str, **flags: Any) -> None:
    """Train RECIPE (`ba-dist recipes` lists them), with any of its values changed by a flag.

    \b
    ba-dist train quickstart --help           shows the values of that recipe
    ba-dist train quickstart --steps 5        a very short run on one rank
    launch/mpirun.sh -n 4 -- train quickstart --multiplicity 4 --run-dir runs/first
    """
    config = override(recipe(name), given(flags))
    from ba_dist import comm, runtime
    from ba_dist.health.inject import parse
    from ba_dist.run.report import table
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
    say_once(table(outcome.summary, outcome.task, outcome.run_dir))


@click.command(cls=RecipeCommand)
@click.argument("name", metavar="RECIPE")
@click.option("--site", required=True, help="a job script of slurm/: gpu, cpu, cray-xc …")
@click.option("--nodes", required=True, type=click.IntRange(1), help="nodes of the job")
@click.option("--ranks-per-node", type=click.IntRange(1), help="default as the site's script says")
@click.option("--cpus-per-task", type=click.IntRange(1), help="processors of a rank")
@click.option("--time", help="limit of one start, as HH:MM:SS or D-HH; the job goes on after it")
@click.option("--account", help="who pays")
@click.option("--partition", help="nodes to choose from; several are separated by commas")
@click.option("--qos", help="quality of service")
@click.option("--constraint", help="features that the nodes must have")
@click.option("--job-name", help="default RECIPE")
@click.option("--dry-run", is_flag=True, help="print the job script and do nothing")
@config_flags
def submit(
    name: str, site: str, nodes: int, ranks_per_node: int | None, dry_run: bool, **flags: Any
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

    wishes = {key: flags.pop(key) for key in job_script.WISHES}
    changes = given(flags)
    config = override(recipe(name), changes)
    template = slurm.template(site)
    ranks = ranks_per_node or job_script.ranks_per_node(template)
    layout = layout_of(config, nodes * ranks)
    job = job_script.Job(
        site, template, name, nodes, ranks, given(wishes), changes, **slurm.job_paths(config)
    )
    text = job_script.render(job)
    if dry_run:
        click.echo(text, nl=False)
        return
    click.echo(slurm.submit(job, text, layout))
