"""`ba-dist compare` and `report`: what people look at after runs."""

from pathlib import Path

import click

_RUNS = click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.command()
@_RUNS
@click.option(
    "--to",
    type=float,
    metavar="RESULT",
    help="the result to be reached, 0.9 for 90 % of right answers; default the best that all reach",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def compare(runs: tuple[Path, ...], to: float | None, as_json: bool) -> None:
    """Compare RUNS: how good, how soon (steps, epochs, time), how fast, and what differs in them.

    A result is reached at the first evaluation that found it; time is that of training alone.

    \b
    ba-dist compare runs/first runs/second
    ba-dist compare sweeps/quickstart/* --to 0.85
    """
    from ba_dist.reports.compare import compare as look
    from ba_dist.reports.compare import table
    from ba_dist.run.run_dir import to_json

    found = look(runs, to)
    click.echo(to_json(found) if as_json else table(found))


@click.command()
@_RUNS
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="default RUN/report.html; of several runs report-RUN-RUN.html, here",
)
def report(runs: tuple[Path, ...], output: Path | None) -> None:
    """Write a page about one or more RUNS, for a browser: one file that needs no network.

    Results, curves, groups and lanes, what was read, what was unusual, copies of a few samples, all
    settings and versions. Each training leaves one in its run directory. A file that is there is
    replaced only if it is an earlier report of the same runs.
    """
    from ba_dist.reports.page import write_report

    click.echo(write_report(runs, output))
