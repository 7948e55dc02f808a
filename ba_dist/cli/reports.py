"""`ba-dist compare` and `report`: what people look at after runs."""

from collections.abc import Sequence
from pathlib import Path

import click

from ba_dist.errors import UserError

RUNS = click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))


def begun(runs: Sequence[Path]) -> list[Path]:
    """The run directories: the folder of a sweep stands for all of its runs that have begun.

    Raises:
        UserError: where none of them has.
    """
    from ba_dist.sweep import plan

    found: list[Path] = []
    for run in runs:
        if not (run / plan.FILE).is_file():
            found.append(run)
            continue
        of = [run / row.run for row in plan.read(run).rows]
        there = [path for path in of if (path / "metrics.jsonl").is_file()]
        if not there:
            raise UserError(f"no run of the sweep {run} has begun")
        found += there
    return found


def plot_mark(kind: str, run: Path, output: Path) -> str:
    """The mark of a picture of a run; collective over the world, before there is any work.

    Raises:
        UserError: on all ranks, where another file is there, or its ending is unknown.
    """
    from ba_dist.comm import start
    from ba_dist.reports.files import check_picture, check_replaceable, mark_of

    check_picture(output)
    comm, mark = start(), mark_of(kind, [run], output)
    comm.together(lambda: check_replaceable(output, mark, "plot") if comm.rank == 0 else None)
    return mark


@click.command()
@RUNS
@click.option(
    "--to",
    type=float,
    metavar="RESULT",
    help="the result to be reached, 0.9 for 90 % of right answers; default the best that all reach",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def compare(runs: tuple[Path, ...], to: float | None, as_json: bool) -> None:
    """Compare RUNS: how good, how soon (steps, epochs, time), how fast, and what differs in them.

    A result is reached at the first evaluation that found it; time is that of training alone. The
    folder of a sweep stands for its runs.

    \b
    ba-dist compare runs/first runs/second
    ba-dist compare sweeps/quickstart --to 0.85
    """
    from ba_dist.reports.compare import compare as look
    from ba_dist.reports.compare import table
    from ba_dist.run.run_dir import to_json

    found = look(begun(runs), to)
    click.echo(to_json(found) if as_json else table(found))


@click.command()
@RUNS
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="default RUN/report.html; of several runs report-RUN-RUN.html, here",
)
def report(runs: tuple[Path, ...], output: Path | None) -> None:
    """Write a page about one or more RUNS, or a sweep, for a browser: one file, without network.

    Results, curves, groups and lanes, what was read, what was unusual, copies of a few samples, all
    settings and versions. Each training leaves one in its run directory. A file that is there is
    replaced only if it is an earlier report of the same runs.
    """
    from ba_dist.reports.page import write_report

    click.echo(write_report(begun(runs), output))
