"""What the order of an epoch costs a rank, for data and worlds of any size.

    python benchmarks/order.py

Builds the sampler of an epoch as every rank of a run does, asks it for batches at the start, in
the middle and at the end of the epoch, and measures the time and the memory that this takes beyond
what the process had before. Nothing is started on those ranks: the order needs no communication.
"""

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from harness import Report, Table, count_option, measure, one_message, output_option, output_path

from ba_dist import runtime
from ba_dist.errors import UserError
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import GroupSampler, shuffle

runtime.quiet()

BLOCK, WINDOW = 128, 32  # the defaults of --shuffle-block and --shuffle-window
KINDS = ("full", "block")


def batches(samples: int, layout: Layout, rank: int, kind: str, epoch: int) -> list[np.ndarray]:
    """The sampler of one rank, built anew, and what it gives at three places of an epoch."""
    order = shuffle(kind, BLOCK, WINDOW)
    sampler = GroupSampler(samples, 0, layout, layout.group(rank), order=order)
    first = epoch * sampler.steps_per_epoch
    steps = sampler.steps_per_epoch
    return [sampler(first + step)[1] for step in (0, steps // 2, steps - 1)]


def seconds_of(work: Callable[[], Any]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def peak_megabytes(work: Callable[[], Any]) -> float:
    """The most memory that it held at a time, beyond what was there before."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--samples",
    type=click.IntRange(1, 2**40),
    default=10**10,
    show_default=True,
    help="N, samples of the dataset.",
)
@count_option("--ranks", 5704, "W, ranks of the run.")
@count_option("--multiplicity", 8, "M, augmented copies of each sample.")
@count_option("--batch-per-group", 64, "Samples that a group holds in a step.")
@count_option("--trials", 20, "Times that it is built; the median is taken over them.")
@output_option
@one_message
def main(samples, ranks, multiplicity, batch_per_group, trials, output):
    """Measure memory and time of an epoch's order on the first, a middle and the last rank.

    The time is for building the sampler and drawing three batches of an epoch, twice: of the first
    epoch and of a later one.
    """
    groups = Layout(ranks, multiplicity, batch_per_group * ranks).groups
    layout = Layout(ranks, multiplicity, batch_per_group * groups)
    if samples < layout.batch_size:
        raise UserError(f"--samples {samples} are less than one batch of {layout.batch_size}")
    report = Report(
        "order",
        {"samples": samples, "trials": trials, "shuffle_block": BLOCK, "shuffle_window": WINDOW},
        {"ranks": ranks, "groups": groups, "copies": multiplicity, "batch": layout.batch_size},
    )
    made = Table(
        f"The order of {samples:,} samples for one of {ranks} ranks",
        ["shuffle", "rank", "ms", "+-", "peak MB"],
    )
    for kind in KINDS:
        for rank in sorted({0, ranks // 2, ranks - 1}):

            def work(kind: str = kind, rank: int = rank) -> None:
                for epoch in (0, 1):
                    batches(samples, layout, rank, kind, epoch)

            work()
            taken = measure(seconds_of(work) for _ in range(trials))
            peak = peak_megabytes(work)
            report.results.append(
                {"shuffle": kind, "rank": rank, "seconds": taken.as_dict(), "peak_megabytes": peak}
            )
            made.add(kind, rank, taken.median * 1000, taken.deviation * 1000, peak)
    report.tables.append(made)
    path = output_path("order", output)
    report.write(path)
    report.show(path)


if __name__ == "__main__":
    main()
