"""`ba-dist recipes` and `doctor`: what there is, and what this machine lacks."""

import sys

import click

from ba_dist.cli.flags import recipes_that_begin
from ba_dist.config import options
from ba_dist.recipes import RECIPES, recipe, summary


@click.command()
@click.argument("name", required=False, shell_complete=recipes_that_begin)
def recipes(name: str | None) -> None:
    """List the recipes, or show every value of the recipe NAME."""
    if name is None:
        width = max(map(len, RECIPES))
        for known in RECIPES:
            click.echo(f"{known:{width}}  {summary(known)}")
        return
    config = recipe(name)
    click.echo(summary(name))
    for option in options():
        value = option.of(config)
        shown = "-" if value is None else option.text(value)
        click.echo(f"  {option.flag:22} {shown:18} {option.help}")


@click.command()
@click.option("--data-dir", help="the data directory to look at")
def doctor(data_dir: str | None) -> None:
    """Look at this machine (under mpirun: at all ranks) and say what is missing."""
    from ba_dist import comm, runtime

    runtime.quiet()
    from ba_dist.doctor import examine

    text, healthy = examine(data_dir)
    comm.leave_together(text, 0 if healthy else 1, sys.stdout)
