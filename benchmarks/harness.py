"""What all benchmarks share: statistics, tables, facts about the machine, JSON, the command line.

A benchmark's rate is always that of every rank: each rank measures itself, all rates are gathered,
and a total is their sum. The middle is the median and the spread is the standard deviation; both
are taken over trials, after warm-up.
"""

import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click

from ba_dist import comm as ba_comm
from ba_dist import runtime
from ba_dist.errors import UserError
from ba_dist.reports.columns import aligned
from ba_dist.run.run_dir import to_json

ROOT = Path(__file__).resolve().parents[1]
MPIRUN = ROOT / "launch" / "mpirun.sh"


# --- statistics -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """The median of some trials and their standard deviation (0 for a single one)."""

    median: float
    deviation: float
    trials: int

    def __str__(self) -> str:
        return f"{number(self.median)} +-{number(self.deviation)}"

    def as_dict(self) -> dict[str, float]:
        """The values for JSON."""
        return {"median": self.median, "deviation": self.deviation, "trials": self.trials}


def measure(values: Iterable[float]) -> Measure:
    """The median and deviation of these trials.

    Raises:
        ValueError: when there is none.
    """
    trials = [float(value) for value in values]
    if not trials:
        raise ValueError("there is no trial to take the median of")
    spread = statistics.stdev(trials) if len(trials) > 1 else 0.0
    return Measure(statistics.median(trials), spread, len(trials))


def number(value: float) -> str:
    """A number with about four significant digits: 0.0123, 1.23, 45.6, 2138."""
    for limit, digits in ((0.1, 4), (10, 2), (1000, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:.0f}"


def last_lines(per_rank: Measure, total: Measure, ranks: int, device: str) -> str:
    """The two lines by which sites compare throughput; a program's last output.

    Args:
        per_rank: images per second of a rank.
        total: of all ranks together.
        ranks: how many.
        device: CPU or GPU.
    """
    return (
        f"Img/sec per {device}: {per_rank.median:.1f} +-{per_rank.deviation:.1f}\n"
        f"Total img/sec on {ranks} {device}(s): {total.median:.1f} +-{total.deviation:.1f}"
    )


# --- tables ---------------------------------------------------------------------------------------


@dataclass
class Table:
    """Rows under headings, for a terminal and for Markdown.

    Args:
        title: a line above it.
        columns: the headings.
        rows: a cell a column; numbers are shortened by `number`.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)

    def add(self, *cells: Any) -> None:
        """Adds a row.

        Raises:
            ValueError: when it has not a cell for every column.
        """
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for the {len(self.columns)} columns of a table")
        self.rows.append(cells)

    def text(self) -> str:
        """Columns aligned by spaces: the first to the left, the others to the right."""
        lines = [list(self.columns), *self._cells()]
        return "\n".join([self.title, *aligned(lines, right=slice(1, None))])

    def markdown(self) -> str:
        """The same as a Markdown table under a heading."""
        lines = [list(self.columns), ["---", *["--:"] * (len(self.columns) - 1)], *self._cells()]
        rows = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([f"## {self.title}", "", *rows, ""])

    def _cells(self) -> list[list[str]]:
        return [[_cell(cell) for cell in row] for row in self.rows]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return number(value) if isinstance(value, float) else f"{value}"


# --- what it was measured on ----------------------------------------------------------------------


def hardware() -> dict[str, Any]:
    """The machine, as far as it decides a figure: processor, cores, memory, how busy it is."""
    import psutil

    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def _ticks() -> tuple[int, int]:
    """(processor time that the host gave to other machines, all time), since this one started."""
    try:
        times = [int(ticks) for ticks in Path("/proc/stat").read_text().split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return times[7], sum(times)


def versions() -> dict[str, str]:
    """Of Python, its packages and, once this process has joined the ranks, MPI."""
    mpi = {"mpi": ba_comm.library()[0]} if "mpi4py.MPI" in sys.modules else {}
    return {**runtime.versions(), **mpi}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def command_line() -> str:
    """The command as it was typed, without the path of the interpreter."""
    program = Path(sys.argv[0]).resolve()
    if program.is_relative_to(ROOT):
        program = program.relative_to(ROOT)
    launch = ba_comm.ranks()
    start = f"{MPIRUN.relative_to(ROOT)} -n {launch.world_size} -- " if launch else ""
    return start + shlex.join(["python", f"{program}", *sys.argv[1:]])


# --- reports --------------------------------------------------------------------------------------


@dataclass
class Report:
    """The results of a benchmark: a table on the screen, a JSON file and a Markdown file.

    Args:
        name: of the benchmark.
        settings: what was asked for.
        layout: ranks, groups, copies, batch.
        results: one dictionary a row, for programs to read.
        tables: for people to read.
        notes: what was left out, and why.
    """

    name: str
    settings: dict[str, Any]
    layout: dict[str, Any] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began = _ticks()
        self.facts = {
            "benchmark": self.name,
            "command": command_line(),
            "date": f"{datetime.now():%Y-%m-%d %H:%M}",
            "hardware": hardware(),
            "versions": versions(),
        }

    def header(self) -> str:
        """Command, hardware, versions and layout, for above the table."""
        machine, versions = self.facts["hardware"], self.facts["versions"]
        lines = [
            f"{self.name}: {self.facts['command']}",
            f"{machine['cores']} cores of {machine['cpu']}, load {machine['load_before'][0]} before"
            f" and {machine.get('stolen_share', 0):.1%} of the time taken by the host",
            ", ".join(f"{name} {version}" for name, version in versions.items()),
            ", ".join(f"{name} {value}" for name, value in self.layout.items()),
        ]
        return "\n".join(line for line in lines if line)

    def write(self, path: Path) -> None:
        """Writes the JSON file, and the same tables as Markdown beside it; ends the report."""
        stolen, passed = (now - then for now, then in zip(_ticks(), self._began, strict=True))
        self.facts["hardware"]["stolen_share"] = round(stolen / max(1, passed), 4)
        content = {
            **self.facts,
            "layout": self.layout,
            "settings": self.settings,
            "results": self.results,
            "notes": self.notes,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(content, indent=2) + "\n")
        header = "\n".join(f"    {line}" for line in self.header().splitlines())
        parts = [f"# {self.name}", header, *(table.markdown() for table in self.tables)]
        notes = "\n".join(f"- {note}" for note in self.notes)
        path.with_suffix(".md").write_text("\n\n".join([*parts, notes]).rstrip() + "\n")

    def show(self, path: Path) -> None:
        """Prints it, with where it was written."""
        notes = [f"note: {note}" for note in self.notes]
        tables = [f"\n{table.text()}" for table in self.tables]
        print("\n".join([self.header(), *tables, *notes, f"written: {shown(path)}"]), flush=True)


def of_ranks(report: Report, part: Path) -> dict[str, Any]:
    """What a program of several ranks has written; its versions and notes become the report's."""
    content: dict[str, Any] = json.loads(part.read_text())
    report.facts["versions"] = content["versions"]
    report.notes += [note for note in content["notes"] if note not in report.notes]
    return content


def shown(path: Path) -> str:
    """A path as short as a person would type it here."""
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}"


def output_path(name: str, output: str | None) -> Path:
    """The JSON file: as asked, or runs/bench-NAME-DATE/NAME.json."""
    if output:
        return Path(output).absolute()
    return Path("runs", f"bench-{name}-{datetime.now():%Y%m%d-%H%M%S}", f"{name}.json").absolute()


# --- the command line -----------------------------------------------------------------------------


class Numbers(click.ParamType):
    """Whole numbers with commas between them, none twice.

    Args:
        least: that one of them may be.
    """

    name = "N,N,..."

    def __init__(self, least: int = 1):
        self.least = least

    def convert(self, value: Any, param: Any, ctx: Any) -> list[int]:
        """The list of numbers, in the order given."""
        if isinstance(value, list):
            return value
        try:
            numbers = [int(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers such as 1,2,4", param, ctx)
        if min(numbers) < self.least or len(set(numbers)) < len(numbers):
            message = f"{value!r} must hold numbers from {self.least} up, none of them twice"
            self.fail(message, param, ctx)
        return numbers


output_option = click.option(
    "--output",
    metavar="FILE",
    help="Write the JSON here, and the tables beside it as Markdown."
    "  [default: runs/bench-NAME-DATE/NAME.json]",
)


model_option = click.option(
    "--model", default="resnet50", show_default=True, help="Name of the network."
)
compute_ms_option = click.option(
    "--compute-ms",
    type=click.FloatRange(0),
    default=0.0,
    help="Wait so long instead of computing.  [default: train the network]",
)


def count_option(flag: str, default: int, text: str | None = None) -> Callable[[Any], Any]:
    """An option that takes a whole number from 1 up.

    Args:
        flag: with its dashes.
        default: shown in the help.
        text: of the help.
    """
    kind = click.IntRange(1)
    return click.option(flag, type=kind, default=default, show_default=True, help=text)


def image_size_option(text: str | None = None) -> Callable[[Any], Any]:
    """`--image-size`, of ImageNet unless told."""
    return count_option("--image-size", 224, text)


def steps_option(default: int) -> Callable[[Any], Any]:
    """`--steps` of contenders that take turns."""
    return count_option(
        "--steps",
        default,
        "Steps of a turn that count; the median is taken over those of all turns.",
    )


def precision_option(*choices: str, text: str | None = None) -> Callable[[Any], Any]:
    """`--precision`, the first of the choices unless told."""
    kind = click.Choice(choices)
    return click.option("--precision", type=kind, default=choices[0], show_default=True, help=text)


def one_message(program: Callable[..., Any]) -> Callable[..., Any]:
    """Errors that a user can correct end the program with one message.

    What only one rank has found is left to the hook of `ba_dist.start`, which ends the job.
    """

    @wraps(program)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return program(*args, **kwargs)
        except UserError as error:
            if ba_comm.ranks() and not error.agreed:
                raise
            leave(f"{error}")

    return guarded


def leave(message: str) -> NoReturn:
    """Ends all ranks with status 2 and one message; every rank must have found the same."""
    ba_comm.leave_together(f"{Path(sys.argv[0]).name}: {message}", 2)
