"""Where the seconds go between the command and the first step.

    python benchmarks/startup.py                       quickstart on two ranks, files warm
    python benchmarks/startup.py --ranks 1 --rounds 9

Each round starts a training of one step as a person would, by launch/mpirun.sh, and notes on rank 0
when each part of it began and ended. A part's seconds are those of the clock, and so include what
the rank waits for. The first round warms the files and does not count.
"""

import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

# What is timed, part by part: the module, and the name in it.
_PARTS = {
    "MPI": ("ba_dist.training", "start"),
    "the run directory": ("ba_dist.run.saving", "open_run_dir"),
    "TensorFlow": ("ba_dist.runtime", "prepare"),
    "Horovod": ("ba_dist.comm.world", "Comm.start_horovod"),
    "the samples": ("ba_dist.training", "_open_samples"),
    "the network": ("ba_dist.experiment", "assemble"),
    "the step's variables": ("ba_dist.experiment", "train_step"),
    "what makes it this run": ("ba_dist.run.record", "identity"),
    "an earlier job": ("ba_dist.training", "_resume"),
    "config.json": ("ba_dist.run.record", "describe"),
    "the writer": ("ba_dist.training", "_open_writer"),
    "the first step": ("ba_dist.step", "TrainStep.__call__"),
}
_BEGUN = "BA_DIST_BENCHMARK_BEGUN"  # seconds of time.time() at which the command was given


# --- on a rank ------------------------------------------------------------------------------------


class Clock:
    """Seconds since the command was given at which parts began and ended, in this process."""

    def __init__(self) -> None:
        self._begun = float(os.environ[_BEGUN])
        self.times: dict[str, tuple[float, float]] = {}

    def now(self) -> float:
        """Seconds since the command."""
        return time.time() - self._begun

    def watch(self, part: str, module: str, name: str) -> None:
        """From here on the first call of a function is noted."""
        holder = importlib.import_module(module)
        *classes, last = name.split(".")
        holder = functools.reduce(getattr, classes, holder)
        work = getattr(holder, last)

        @functools.wraps(work)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = self.now()
            try:
                return work(*args, **kwargs)
            finally:
                self.times.setdefault(part, (begun, self.now()))

        setattr(holder, last, timed)


def on_rank(words: list[str], output: str) -> None:
    """Runs `ba-dist` with its parts timed; rank 0 writes them down."""
    clock = Clock()
    started = clock.now()
    from ba_dist import cli, comm

    importlib.import_module("ba_dist.training")
    clock.times["the launcher"] = (0.0, started)
    clock.times["this package"] = (started, clock.now())
    step = _PARTS["the first step"]
    for part, place in _PARTS.items():
        if place is not step:
            clock.watch(part, *place)

    def import_step(*args: Any, **kwargs: Any) -> Any:
        clock.watch("the first step", *step)
        return assemble(*args, **kwargs)

    experiment = importlib.import_module("ba_dist.experiment")
    assemble = experiment.train_step
    experiment.train_step = import_step
    sys.argv = ["ba-dist", *words]
    cli.main()
    launch = comm.ranks()
    if launch is None or launch.rank == 0:
        Path(output).write_text(json.dumps(clock.times))


# --- the command ----------------------------------------------------------------------------------


def seconds_of(times: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Part → its seconds; `between them`, what no part has; `in all`, to the end of the last one.

    Args:
        times: part → (begun, ended); one that lies inside of another has no seconds of its own.
    """
    found, ended, between = {}, 0.0, 0.0
    for part, (begun, end) in sorted(times.items(), key=lambda item: item[1]):
        between += max(0.0, begun - ended)
        found[part] = max(0.0, end - max(begun, ended))
        ended = max(ended, end)
    return {**found, "between them": between, "in all": ended}


def one_start(ranks: int, words: list[str]) -> dict[str, float]:
    """Starts a training once: part → seconds.

    Raises:
        UserError: with the end of its output, when it failed.
    """
    from harness import MPIRUN

    from ba_dist.errors import UserError

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "times.json")
        line = [f"{MPIRUN}", "-n", f"{ranks}", "--", "python", f"{Path(__file__).resolve()}"]
        line += ["on-rank", f"{output}", "train", *words, "--steps=1", f"--run-dir={folder}/run"]
        begun = {_BEGUN: repr(time.time())}
        done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **begun})
        if done.returncode or not output.exists():
            end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
            raise UserError(f"a start ended with status {done.returncode}:\n{end}")
        return seconds_of(json.loads(output.read_text()))


@click.command(context_settings={"max_content_width": 100})
@click.option("--recipe", default="quickstart", show_default=True, help="What is trained.")
@click.option("--ranks", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="That count.")
@click.option(
    "--output",
    metavar="FILE",
    help="Write the JSON here, and the tables beside it as Markdown."
    "  [default: runs/bench-startup-DATE/startup.json]",
)
def main(recipe: str, ranks: int, rounds: int, output: str | None) -> None:
    """Measure the seconds from the command to the end of the first step, part by part."""
    from harness import Report, Table, measure, one_message, output_path

    @one_message
    def run() -> None:
        report = Report("startup", {"recipe": recipe, "rounds": rounds}, {"ranks": ranks})
        words = [recipe, f"--multiplicity={ranks}", "--val-samples=100"]
        starts = [one_start(ranks, words) for _ in range(rounds + 1)][1:]
        made = Table("Seconds from the command to the first step, rank 0", ["part", "s", "+-"])
        for part in starts[0]:
            found = measure(start[part] for start in starts)
            made.add(part, found.median, found.deviation)
            report.results.append({"part": part, "seconds": found.as_dict()})
        report.tables.append(made)
        path = output_path("startup", output)
        report.write(path)
        report.show(path)

    run()


if __name__ == "__main__":
    if sys.argv[1:2] == ["on-rank"]:
        on_rank(sys.argv[3:], sys.argv[2])
    else:
        main()
