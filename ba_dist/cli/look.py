"""`ba-dist recipes` and `doctor`: what there is, and what this machine lacks."""

import sys

import click

from ba_dist.cli.flags import recipes_that_begin
from ba_dist.config import Config, options
from ba_dist.recipes import RECIPES, recipe, summary
from ba_dist.recipes.about import about
from ba_dist.recipes.published import published

_HEAD = ("recipe", "network", "dataset", "B", "M", "length", "published", "where")


@click.command()
@click.argument("name", required=False, shell_complete=recipes_that_begin)
def recipes(name: str | None) -> None:
    """List the recipes and what the paper reports of them, or show every value of the recipe NAME.

    Length: epochs; "st" are steps. Published: the baseline, then batch augmentation; top-1 accuracy
    in percent, of lstm-ptb perplexity, of transformer-wmt16 BLEU. t2 is table 2, f4 figure 4.
    """
    if name is None:
        rows = [_HEAD, *(_row(known) for known in RECIPES)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip())
        return
    config = recipe(name)
    click.echo(summary(name))
    for line in about(name, config):
        click.echo(line)
    for option in options():
        value = option.of(config)
        shown = "-" if value is None else option.text(value)
        click.echo(f"  {option.flag:22} {shown:18} {option.help}")


def _row(name: str) -> tuple[str, ...]:
    config, rows = recipe(name), published(name)
    numbers = dict.fromkeys(f"{_number(row.baseline)}→{row.augmented:.2f}" for row in rows)
    where = ", ".join(f"{row.kind[0]}{row.number}" for row in rows)
    return (
        *(name, config.model.model, config.data.dataset),
        *(str(config.batch.batch_size), str(config.batch.multiplicity), _length(config)),
        *(", ".join(numbers) or "-", where or "-"),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _length(config: Config) -> str:
    steps = config.run.steps
    return f"{config.run.epochs}" if steps is None else f"{steps / 1000:g}k st"


@click.command()
@click.option("--data-dir", help="the data directory to look at")
def doctor(data_dir: str | None) -> None:
    """Look at this machine (under mpirun: at all ranks) and say what is missing."""
    from ba_dist import comm, runtime

    runtime.quiet()
    from ba_dist.doctor import examine

    text, healthy = examine(data_dir)
    comm.leave_together(text, 0 if healthy else 1, sys.stdout)
