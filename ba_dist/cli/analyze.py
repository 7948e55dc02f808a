"""`ba-dist analyze`: what can be measured of the gradients of a run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click

from ba_dist.cli.reports import plot_mark
from ba_dist.cli.runs import DATA_DIR, RUN
from ba_dist.cli.saying import is_first, say_once


def _states(default: str) -> Callable[[Any], Any]:
    return click.option(
        "--checkpoint",
        "which",
        multiple=True,
        default=[default],
        show_default=True,
        metavar="initial|all|newest|best|STEP",
        help="at which weights: of the start, of every checkpoint, of one; may be given repeatedly",
    )


_SEED = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="of samples and copies"
)
_JSON = click.option("--json", "as_json", is_flag=True, help="print one JSON object")
_OUTPUT = click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.png|svg|pdf",
    help="also draw it; the ending chooses the format",
)


@click.group()
def analyze() -> None:
    """Measure the gradients of a run: what table 1 and figure 1 of the paper are about.

    \b
    ba-dist analyze correlation runs/first    are copies alike, and more so than samples?
    ba-dist analyze variance runs/first       how much do more copies still buy?

    Both work afterwards, from checkpoints, on any number of ranks.
    """


@analyze.command()
@RUN
@_states("all")
@click.option(
    "--pairs",
    type=click.IntRange(2),
    default=100,
    show_default=True,
    help="of each kind, as many as samples in the paper's table",
)
@_SEED
@click.option(
    "--batch-norm",
    "normalised",
    type=click.Choice(["moving", "ghost"]),
    default="moving",
    show_default=True,
    help="moving: each sample alone, by the moving statistics; ghost: in a ghost batch, beside"
    " samples that stay the same",
)
@DATA_DIR
@_JSON
@_OUTPUT
def correlation(
    run: Path,
    which: tuple[str, ...],
    pairs: int,
    seed: int,
    normalised: Literal["moving", "ghost"],
    data_dir: str | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Compare the gradients of samples and of their augmented copies (table 1 of the paper).

    \b
    ba-dist analyze correlation runs/first
    launch/mpirun.sh -n 4 -- analyze correlation runs/first --checkpoint initial --checkpoint newest

    Pearson's correlation over all weights, median and deviation over the pairs: of an image and a
    copy of it, for each augmentation of the recipe and for all together; of two images of one
    class; of two classes.
    """
    from ba_dist import runtime

    runtime.quiet()
    from ba_dist.analysis.correlation import correlate
    from ba_dist.run.run_dir import to_json

    mark = plot_mark("analyze correlation", run, output) if output else ""
    with _bar("pair") as done:
        found = correlate(
            run, which, data_dir, pairs=pairs, seed=seed, normalised=normalised, done=done
        )
    if as_json:
        say_once(to_json({"run": str(run), **found.as_dict()}))
    else:
        say_once(found.table())
        if found.left_out:
            say_once(f"note: left out, for they mix two samples: {', '.join(found.left_out)}")
    if output and is_first():
        from ba_dist.reports.gradients import plot_correlations

        click.echo(plot_correlations(found, run.resolve().name, output, mark), err=as_json)


@analyze.command()
@RUN
@_states("newest")
@click.option(
    "--copies",
    type=click.IntRange(2),
    default=4,
    show_default=True,
    help="of each sample; the run may have had one",
)
@click.option(
    "--repeats",
    type=click.IntRange(2),
    default=8,
    show_default=True,
    help="independent estimates, of 8 ghost batches each; fewer where samples are few",
)
@_SEED
@DATA_DIR
@_JSON
@_OUTPUT
def variance(
    run: Path,
    which: tuple[str, ...],
    copies: int,
    repeats: int,
    seed: int,
    data_dir: str | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Tell how much of the gradient's variance more copies take away, and which M is enough.

    \b
    ba-dist analyze variance runs/first
    launch/mpirun.sh -n 2 -- analyze variance runs/first --checkpoint all --repeats 16

    The variance between samples stays with any number of copies; that between copies of a sample
    falls with M. The norm is what the gradient of a step has for each M (figure 1 of the paper).
    """
    from ba_dist import runtime

    runtime.quiet()
    from ba_dist.analysis.variance import measure_variance
    from ba_dist.run.run_dir import to_json

    mark = plot_mark("analyze variance", run, output) if output else ""
    with _bar("estimate") as done:
        found = measure_variance(
            run, which, data_dir, copies=copies, repeats=repeats, seed=seed, done=done
        )
    say_once(to_json({"run": str(run), **found.as_dict()}) if as_json else found.table())
    if found.repeats < repeats and is_first():
        click.echo(
            f"note: --repeats {repeats}, but the training samples are enough for {found.repeats} of"
            f" {found.ghosts} ghost batches of {found.ghost_batch}; an estimate is of other samples"
            " than every other one",
            err=True,
        )
    if output and is_first():
        from ba_dist.reports.gradients import plot_variances

        click.echo(plot_variances(found, run.resolve().name, output, mark), err=as_json)


@contextmanager
def _bar(unit: str) -> Iterator[Callable[[int], object]]:
    """Counts on the terminal of the first rank what it has done."""
    from tqdm import tqdm

    hidden = None if is_first() else True  # None: shown on a terminal only
    with tqdm(desc="gradients", unit=unit, disable=hidden, leave=False) as bar:
        yield bar.update
