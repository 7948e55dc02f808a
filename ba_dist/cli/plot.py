"""`ba-dist plot`: pictures of runs and of augmented copies."""

from pathlib import Path
from typing import Any

import click

from ba_dist.cli.flags import RecipeCommand, given, settings_flags
from ba_dist.cli.reports import RUNS, begun, plot_mark
from ba_dist.cli.runs import CHECKPOINT, DATA_DIR, RUN
from ba_dist.cli.saying import is_first
from ba_dist.cli.settings import Settings


class _PlotCommand(click.Command):
    """A first word of `NAMED` is a command of its own; any other one is a run."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args and args[0] in NAMED:
            name = f"{info_name} {args[0]}"
            return NAMED[args[0]].make_context(name, args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=_PlotCommand)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="default RUN/curves.png; of several runs curves-RUN-RUN.png, here",
)
def plot(runs: tuple[Path, ...], output: Path | None) -> None:
    """Draw loss, accuracy, learning rate and gradient norm of one or more RUNS as a PNG.

    Single steps are light, their running mean is strong; validation is beside training. A file
    that is there is replaced only if it is an earlier plot of the same runs.

    \b
    ba-dist plot runs/first runs/second      the curves of two runs
    ba-dist plot curves sweeps/quickstart    error of training and validation, as the paper draws it
    ba-dist plot gradient-norm runs/first    the norm of the gradient; see --help of both
    ba-dist plot augmentations quickstart    what a recipe makes of its samples; see its own --help
    ba-dist plot confusion runs/first        which classes it takes for which; see its own --help
    """
    from ba_dist.reports.plots import plot_runs

    click.echo(plot_runs(list(runs), output))


_X = click.option(
    "--x",
    type=click.Choice(["epoch", "step", "hours", "samples", "instances"]),
    default="epoch",
    show_default=True,
    help="what the axis counts; hours are those of training, without evaluations",
)
_OUTPUT = click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="file to write, as its ending tells: .png, .svg, .pdf; default: drawn on the terminal",
)


@click.command()
@RUNS
@_X
@click.option(
    "--metric",
    metavar="NAME",
    help="error, accuracy, loss, perplexity, lr …; default what the runs are judged by, of an"
    " accuracy the error",
)
@_OUTPUT
def plot_curves(runs: tuple[Path, ...], x: Any, metric: str | None, output: Path | None) -> None:
    """Draw a metric of RUNS: training dashed, validation solid, and bars of what was found at last.

    Runs that differ in the seed alone are one line, their mean, in a band of a deviation (n - 1).
    Other lines are named by what differs in their settings. The folder of a sweep stands for its
    runs.

    \b
    ba-dist plot curves runs/first runs/second
    ba-dist plot curves sweeps/quickstart --x hours --output curves.svg
    """
    from ba_dist.reports.curves import plot_curves as draw

    click.echo(draw(begun(runs), x, metric, output))


@click.command()
@RUNS
@_X
@_OUTPUT
def plot_gradient_norm(runs: tuple[Path, ...], x: Any, output: Path | None) -> None:
    """Draw the norm of the gradient of RUNS at each logged step, and its running mean over it.

    Every step is there of runs that were trained with --log-every 1.
    """
    from ba_dist.reports.curves import plot_gradient_norm as draw

    click.echo(draw(begun(runs), x, output))


@click.command(cls=RecipeCommand)
@click.option(
    "--output", type=click.Path(path_type=Path), help="default augmentations-RECIPE.png, here"
)
@settings_flags
def plot_augmentations(
    name: str | None, config_file: Path | None, output: Path | None, **flags: Any
) -> None:
    """Draw the augmented copies of a few samples of RECIPE beside each other as a PNG.

    They are those of the first step of training, with any value of the recipe changed by a flag.

    \b
    ba-dist plot augmentations quickstart --multiplicity 8
    ba-dist plot augmentations resnet44-cifar10 --auto-augment cifar10 --data-dir data
    ba-dist plot augmentations resnet44-cifar10 --rand-augment 2 --data-dir data
    """
    config = Settings(name, config_file, given(flags)).config()
    from ba_dist import runtime

    runtime.quiet()
    from ba_dist.data.catalog import open_source
    from ba_dist.reports.copies import plot_copies

    source = open_source(config.data, "train")
    click.echo(plot_copies(config, source, output or Path(f"augmentations-{config.title}.png")))


@click.command()
@RUN
@CHECKPOINT
@DATA_DIR
@click.option("--output", type=click.Path(path_type=Path), help="default RUN/confusion.png")
def plot_confusion(run: Path, which: str, data_dir: str | None, output: Path | None) -> None:
    """Evaluate a checkpoint of RUN and draw which classes it takes for which others as a PNG."""
    from ba_dist import runtime

    runtime.quiet()
    from ba_dist.evaluate_run import evaluate_run

    output = output or run / "confusion.png"
    mark = plot_mark("plot confusion", run, output)
    result = evaluate_run(run, which, data_dir, classes=True)
    assert result.counts is not None
    if is_first():
        from ba_dist.reports.confusion import plot_confusion as draw

        title = f"{run.resolve().name}, {result.line()}"
        click.echo(draw(result.counts, result.class_names, title, output=output, mark=mark))


NAMED: dict[str, click.Command] = {
    "augmentations": plot_augmentations,
    "confusion": plot_confusion,
    "curves": plot_curves,
    "gradient-norm": plot_gradient_norm,
}
