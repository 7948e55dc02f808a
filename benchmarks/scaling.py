"""Steps per second as copies and ranks grow: Figure 5 of the paper.

    python benchmarks/scaling.py --ranks 4 --multiplicities 1,4,10
    python benchmarks/scaling.py --ranks 8,16,32,64 --compute-ms 500 --gradient-mb 1

Every rank trains on the same number of instances whatever M is, so an ideal system takes as many
steps a second for M = 4 as for M = 1. A step's time is split into waiting for input, computing,
and the allreduce (which includes waiting for the slowest rank). Multiplicities take turns in one
program, so that a busy moment of the machine meets all of them.

With --compute-ms the network is replaced by a wait of that length, and its gradient by a buffer
that Horovod really sums: many ranks then fit on a few cores, and what is left to see is the share
of the input and of the exchange.
"""

import itertools
import math
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import scaling_plot
import training
from harness import (
    Numbers,
    Report,
    Table,
    measure,
    of_ranks,
    one_message,
    output_option,
    output_path,
)
from ranks import patient_barrier, run_ranks

from ba_dist import comm as ba_comm
from ba_dist import runtime
from ba_dist.calibration.steps import train_step
from ba_dist.comm import Comm
from ba_dist.data.batch import Batch
from ba_dist.errors import LayoutError, UserError
from ba_dist.rules.layout import Layout

runtime.quiet()

PARTS = ("input", "compute", "allreduce")
Result = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What is measured; the fields are the flags."""

    multiplicities: list[int]
    group_sizes: list[int] | None
    batch_per_rank: int
    model: str
    image_size: int
    precision: str
    compute_ms: float
    gradient_mb: float
    input: str
    data_dir: str
    rounds: int
    steps: int
    warm_up: int


# --- the work of a step ---------------------------------------------------------------------------


class Waiting:
    """A wait in place of the network, then a real allreduce of a buffer like its gradient."""

    def __init__(self, comm: Comm, milliseconds: float, megabytes: float):
        import tensorflow as tf

        self._comm, self._seconds = comm, milliseconds / 1000
        self._gradient = tf.ones(max(1, round(megabytes * 1e6 / 4)))

    def __call__(self, batch: Batch) -> float:
        time.sleep(self._seconds)
        begun = time.perf_counter()
        self._comm.allreduce(self._gradient, name="gradient").numpy()
        return time.perf_counter() - begun


class Training:
    """ba_dist's step, telling how long its allreduce took."""

    def __init__(self, comm: Comm, layout: Layout, config: Any, shape: Any, classes: int):
        self._step = train_step(comm, layout, config, shape, classes)

    def __call__(self, batch: Batch) -> float:
        return float(self._step(batch).allreduce_seconds)


# --- on the ranks ---------------------------------------------------------------------------------


def plan(settings: Settings, ranks: int, notes: list[str]) -> list[Layout]:
    """The layouts, all with the same ghost batch; what does not fit these ranks is noted.

    Raises:
        UserError: when none fits.
    """
    possible = []
    sizes = settings.group_sizes or [None]
    for multiplicity, group_size in itertools.product(settings.multiplicities, sizes):
        try:
            possible.append(layout_of(settings, ranks, multiplicity, group_size))
        except LayoutError as error:
            notes.append(f"M = {multiplicity} on {ranks} ranks left out: {error}")
    if not possible:
        raise UserError(f"no multiplicity fits {ranks} ranks: {notes[-1]}")
    common = math.gcd(*(layout.group_batch for layout in possible))
    ghost = max(size for size in range(1, training.GHOST_BATCH + 1) if common % size == 0)
    return [
        layout_of(settings, ranks, layout.multiplicity, layout.group_size, ghost)
        for layout in possible
    ]


def layout_of(
    settings: Settings, ranks: int, multiplicity: int, group_size: int | None, ghost_batch: int = 1
) -> Layout:
    """One layout of `plan`.

    Raises:
        LayoutError: when it does not fit these ranks.
    """
    return training.layout_for(
        settings.batch_per_rank, multiplicity, ranks, ghost_batch, group_size=group_size
    )


def measure_ranks(settings: Settings, comm: Comm, notes: list[str]) -> list[Result]:
    """All multiplicities on the ranks that were started; collective."""
    layouts = plan(settings, comm.world_size, notes)
    dataset = {"jpeg": "pictures" if settings.data_dir else "synthetic-jpeg", "arrays": "synthetic"}
    config = training.configuration(
        settings.model,
        settings.image_size,
        settings.precision,
        dataset[settings.input],
        settings.data_dir,
    )
    config, source, task = training.open_data(config, comm)
    total = settings.rounds * (settings.warm_up + settings.steps)
    work: Any = None
    if settings.compute_ms:
        work = Waiting(comm, settings.compute_ms, settings.gradient_mb)
    else:
        shape, classes = task.facts["image_shape"], task.facts["classes"]
        work = Training(comm, layouts[0], config, shape, classes)
    with ExitStack() as stack:
        batches = [
            stack.enter_context(training.real_batches(config, layout, comm, source, task, total))
            for layout in layouts
        ]
        seconds = take_turns(batches, work, settings)
    return [
        result_of(layout, comm.world.gather_all(np.array(mine)))
        for layout, mine in zip(layouts, seconds, strict=True)
    ]


def take_turns(
    batches: list[training.Batches], work: Any, settings: Settings
) -> list[list[list[float]]]:
    """For each layout the seconds of each step's parts, in the order of `PARTS`."""
    seconds: list[list[list[float]]] = [[] for _ in batches]
    for _ in range(settings.rounds):
        for mine, taken in zip(batches, seconds, strict=True):
            patient_barrier()
            turn = [one_step(mine, work) for _ in range(settings.warm_up + settings.steps)]
            taken += turn[settings.warm_up :]
    patient_barrier()
    return seconds


def one_step(batches: training.Batches, work: Any) -> list[float]:
    """Seconds of waiting for input, of computing and of the allreduce."""
    begun = time.perf_counter()
    batch = next(batches)
    ready = time.perf_counter()
    allreduce = work(batch)
    return [ready - begun, time.perf_counter() - ready - allreduce, allreduce]


# --- results --------------------------------------------------------------------------------------


def result_of(layout: Layout, seconds: np.ndarray) -> Result:
    """The result of one layout.

    Args:
        seconds: [ranks, steps, parts].
    """
    by_step = seconds.mean(axis=0)
    return {
        "ranks": layout.world_size,
        "multiplicity": layout.multiplicity,
        "group_size": layout.group_size,
        "copies_per_rank": layout.copies_per_rank,
        "instances_per_rank": layout.instances_per_rank,
        "batch_size": layout.batch_size,
        "ghost_batch": layout.ghost_batch,
        "steps_per_second": measure(1 / by_step.sum(axis=1)).as_dict(),
        "milliseconds": {
            part: measure(by_step[:, i] * 1000).as_dict() for i, part in enumerate(PARTS)
        },
    }


def add_ratios(results: list[Result]) -> None:
    """Steps per second relative to M = 1 on as many ranks, where that was measured."""
    alone = {r["ranks"]: r["steps_per_second"]["median"] for r in results if r["multiplicity"] == 1}
    for result in results:
        if base := alone.get(result["ranks"]):
            result["to_one_copy"] = result["steps_per_second"]["median"] / base


def table(results: list[Result]) -> Table:
    """A row a number of ranks and multiplicity."""
    made = Table(
        f"Steps per second, {results[0]['instances_per_rank']} instances on every rank",
        ["ranks", "M", "R", "K", "samples", "steps/s", "+-", *(f"{p} ms" for p in PARTS), "x M=1"],
    )
    for result in results:
        steps = result["steps_per_second"]
        made.add(
            result["ranks"],
            result["multiplicity"],
            result["group_size"],
            result["copies_per_rank"],
            result["batch_size"],
            steps["median"],
            steps["deviation"],
            *(result["milliseconds"][part]["median"] for part in PARTS),
            result.get("to_one_copy"),
        )
    return made


# --- running --------------------------------------------------------------------------------------


def measure_worlds(worlds: list[int], settings: Settings, report: Report) -> None:
    """Starts the ranks of each number of them."""
    for ranks in worlds:
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, "part.json")
            run_ranks(ranks, [__file__, *flags(settings), "--output", f"{part}"])
            report.results += of_ranks(report, part)["results"]


def flags(settings: Settings) -> list[str]:
    """The same settings as a command line."""
    values = asdict(settings)
    for name in ("multiplicities", "group_sizes"):
        values[name] = ",".join(map(str, values[name] or []))
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value != ""]


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--ranks",
    type=Numbers(),
    default="4",
    show_default=True,
    help="Numbers of ranks to start, one after the other. Under mpirun, those at hand.",
)
@click.option(
    "--multiplicities",
    type=Numbers(),
    default="1,4,10",
    show_default=True,
    help="M: augmented copies of each sample.",
)
@click.option(
    "--group-sizes",
    type=Numbers(),
    help="R: ranks that share a batch.  [default: as many as M and the ranks allow]",
)
@click.option(
    "--batch-per-rank",
    type=click.IntRange(1),
    default=40,
    show_default=True,
    help="Instances of a rank in a step, whatever M; K copies of whole samples.",
)
@click.option("--model", default="resnet50", show_default=True, help="Name of the network.")
@click.option(
    "--image-size",
    type=click.IntRange(1),
    default=224,
    show_default=True,
    help="Height and width that the network sees.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Arithmetic of the network.",
)
@click.option(
    "--compute-ms",
    type=click.FloatRange(0),
    default=0.0,
    help="Wait so long instead of computing.  [default: train the network]",
)
@click.option(
    "--gradient-mb",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="With --compute-ms: megabytes that Horovod sums. ResNet-50 has 102.",
)
@click.option(
    "--input",
    "input_",
    type=click.Choice(["jpeg", "arrays"]),
    default="jpeg",
    show_default=True,
    help="jpeg: decoded, cropped and resized; arrays: made in memory.",
)
@click.option(
    "--data-dir",
    default="",
    metavar="FOLDER",
    help="Read JPEGs from here.  [default: synthetic ones]",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Turns of each multiplicity.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Steps of a turn that count; the median is taken over those of all turns.",
)
@click.option(
    "--warm-up",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Steps before them, which do not count and use up what was read ahead.",
)
@output_option
@one_message
def main(ranks, output, input_, **values):
    """Measure steps per second for several multiplicities (the paper's Figure 5).

    Weak scaling: every rank has the same work in each of them. The ratio to M = 1 is what batch
    augmentation costs. Examples:

    \b
        python benchmarks/scaling.py --ranks 2 --multiplicities 1,2 --model resnet20 --image-size 32
        python benchmarks/scaling.py --ranks 8,16 --compute-ms 500 --gradient-mb 1
    """
    settings = Settings(input=input_, **values)
    path = output_path("scaling", output)
    if ba_comm.ranks():
        comm = training.join()
        report = Report("scaling", asdict(settings), {"ranks": comm.world_size})
        report.results = measure_ranks(settings, comm, report.notes)
        if comm.rank:
            return
    else:
        report = Report("scaling", asdict(settings), {"ranks": "/".join(map(str, ranks))})
        measure_worlds(ranks, settings, report)
    add_ratios(report.results)
    report.tables.append(table(report.results))
    report.write(path)
    scaling_plot.draw(report.results, PARTS, path.with_suffix(".png"))
    report.show(path)


if __name__ == "__main__":
    main()
