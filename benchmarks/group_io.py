"""How fast a group of ranks gets its batches, in each mode of reading and by what users take today.

    python benchmarks/group_io.py                             groups of 1, 2, 4 and 8 ranks
    launch/mpirun.sh -n 2 -- python benchmarks/group_io.py    one group, of the ranks at hand
    python benchmarks/group_io.py --ready                     up to the tensor that a step takes

Every rank of the group receives the same decoded batches of photographs and drops them at once, so
the figure is that of reading, decoding and exchanging alone. With --ready every rank gets its own
copy of each photograph, ready for the network. Contenders take turns, over several
rounds, so that a busy moment of the machine meets all of them. The ranks share the cores evenly.
"""

import tempfile
from pathlib import Path
from typing import Any

import click

from ba_dist import runtime

runtime.quiet()

import photos  # noqa: E402
import rivals  # noqa: E402
import storage_reads  # noqa: E402
from contenders import ALONE, OURS, READY, RIVALS, Settings, join, measure_group  # noqa: E402
from harness import (  # noqa: E402
    Numbers,
    Report,
    Table,
    count_option,
    measure,
    of_ranks,
    one_message,
    output_option,
    output_path,
)
from ranks import run_ranks  # noqa: E402

from ba_dist import comm as ba_comm  # noqa: E402
from ba_dist.errors import UserError  # noqa: E402

Result = dict[str, Any]
_STREAMING_NOTE = "streaming left out: no --streaming-python (docs/benchmarks.md tells how)"
_FOLDER_NOTE = "tf.data left out: it reads TFRecord files here, not --store folder"
_STRACE_NOTE = "bytes read not counted: strace is not installed"


# --- results --------------------------------------------------------------------------------------


def results_of(rates: dict[str, list[float]], ranks: int) -> list[Result]:
    """A result a contender: its rates, their median, and the ratio to the two baselines."""
    results = []
    for name, mine in rates.items():
        result: Result = {"multiplicity": ranks, "contender": name, "rates": mine}
        result["images_per_second_per_rank"] = measure(mine).as_dict()
        for base, key in (("replicate", "to_replicate"), ("tf.data", "to_tf_data")):
            if base in rates:
                # Round by round, for what disturbs a round disturbs both.
                pairs = zip(mine, rates[base], strict=True)
                result[key] = measure(rate / other for rate, other in pairs).as_dict()
        results.append(result)
    return results


def add_reads(results: list[Result], settings: Settings) -> None:
    """Counts what each mode reads from storage, in a run of its own."""
    ranks = results[0]["multiplicity"]
    modes = [result["contender"] for result in results if result["contender"] in OURS]
    read = storage_reads.observe(ranks, modes, settings.data_dir, settings.batch_size)
    for result in results:
        if result["contender"] in read:
            result["bytes_read"] = read[result["contender"]]
            result["bytes_read_batches"] = storage_reads.BATCHES
            if read.get("replicate"):
                result["bytes_to_replicate"] = result["bytes_read"] / read["replicate"]


def table(results: list[Result], settings: Settings) -> Table:
    """A row a group size and contender."""
    what = "a copy of each, ready for the network," if settings.ready else "all"
    made = Table(
        f"Images per second and rank, every rank of the group getting {what} of the"
        f" {settings.batch_size} of a batch",
        ["contender", "M", "img/s/rank", "+-", "x replicate", "x tf.data", "MB read/batch"],
    )
    for result in results:
        figures = result["images_per_second_per_rank"]
        ratios = [result.get(key, {}).get("median") for key in ("to_replicate", "to_tf_data")]
        read = result.get("bytes_read", 0) / storage_reads.BATCHES / 1e6
        made.add(
            result["contender"],
            result["multiplicity"],
            figures["median"],
            figures["deviation"],
            *ratios,
            read or None,
        )
    return made


# --- running --------------------------------------------------------------------------------------


def prepare(settings: Settings, count: int, store: str) -> None:
    """Makes the photographs, in each form that a contender reads."""
    if store == "folder":
        photos.make_folders(settings.data_dir, count)
    else:
        photos.make_shards(settings.data_dir, count)
    if "streaming" in settings.contenders:
        rivals.write_mds(settings.streaming_python, photos.photographs(count), settings.data_dir)


def measure_sizes(
    sizes: list[int], settings: Settings, store: str, count_reads: bool, report: Report
) -> list[Result]:
    """The results of all group sizes: a program of so many ranks for each."""
    results: list[Result] = []
    for size in sizes:
        names = [name for name in settings.contenders if size > 1 or name in ALONE]
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, "part.json")
            run_ranks(size, [__file__, *flags(settings, names, store), "--output", f"{part}"])
            found = of_ranks(report, part)["results"]
        if count_reads:
            add_reads(found, settings)
        results += found
    return results


def flags(settings: Settings, names: list[str], store: str) -> list[str]:
    """The command line for the ranks of one group."""
    values = {
        "contenders": ",".join(names),
        "batch-size": settings.batch_size,
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "data-dir": settings.data_dir,
        "store": store,
        "streaming-python": settings.streaming_python,
    }
    ready = ["--ready"] if settings.ready else []
    return [f"--{name}={value}" for name, value in values.items()] + ready


def choose(asked: str, store: str, streaming_python: str, ready: bool, report: Report) -> list[str]:
    """The contenders that can take part; those that cannot are noted.

    Raises:
        UserError: naming a contender that there is not.
    """
    known = list(READY) if ready else [*OURS, *RIVALS]
    names = known if asked == "all" else asked.split(",")
    if unknown := [name for name in names if name not in known]:
        which = " with --ready" if ready else ""
        raise UserError(
            f"--contenders {unknown[0]!r} is unknown{which}; choose from {', '.join(known)}"
        )
    if "streaming" in names and not streaming_python:
        report.notes.append(_STREAMING_NOTE)
        names = [name for name in names if name != "streaming"]
    if store == "folder" and any(name.startswith("tf.data") for name in names):
        report.notes.append(_FOLDER_NOTE)
        names = [name for name in names if not name.startswith("tf.data")]
    return names


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--multiplicities",
    type=Numbers(),
    default="1,2,4,8",
    show_default=True,
    help="Sizes of groups: M ranks share a batch. Under mpirun it is that of the world.",
)
@click.option(
    "--contenders",
    default="all",
    show_default=True,
    metavar="NAME,NAME,...",
    help=f"Some of {', '.join([*OURS, *RIVALS])}.",
)
@click.option(
    "--ready",
    is_flag=True,
    help="Measure instances ready for the network: a random box at 224 pixels, mirrored or not,"
    " standardised, on every rank another.",
)
@count_option("--batch-size", 64, "Photographs that a group reads in a step.")
@count_option("--rounds", 5, "Turns of each contender; the median is taken over them.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    show_default=True,
    help="Length of a turn, about.",
)
@click.option(
    "--photos",
    "count",
    type=click.IntRange(64),
    default=1024,
    show_default=True,
    help="Photographs to make, of about 95 kB each.",
)
@click.option(
    "--store",
    type=click.Choice(["tfrecord", "folder"]),
    default="tfrecord",
    show_default=True,
    help="How they are stored.",
)
@click.option(
    "--data-dir",
    metavar="FOLDER",
    help="Read the photographs from here, and make them if they are not there."
    "  [default: beside the output]",
)
@click.option(
    "--streaming-python",
    metavar="FILE",
    default="",
    help="Interpreter that has mosaicml-streaming; without it `streaming` is left out.",
)
@click.option(
    "--count-reads/--no-count-reads",
    default=True,
    show_default=True,
    help="Also count the bytes read from storage, by strace; not under mpirun.",
)
@output_option
@one_message
def main(
    multiplicities,
    contenders,
    ready,
    batch_size,
    rounds,
    seconds,
    count,
    store,
    data_dir,
    streaming_python,
    count_reads,
    output,
):
    """Measure how fast the ranks of a group get their batches.

    Each rank of a group receives the same decoded photographs. ba_dist's modes (replicate,
    broadcast, cooperative) compete with tf.data on every rank, with the tf.data service and with
    mosaicml-streaming. Example of a short run:

        python benchmarks/group_io.py --multiplicities 2,4 --rounds 3 --seconds 1
    """
    path = output_path("group_io", output)
    comm = join() if ba_comm.ranks() else None
    report = Report(
        "group_io",
        {
            "batch_size": batch_size,
            "rounds": rounds,
            "seconds": seconds,
            "photographs": count,
            "store": store,
            "ready": ready,
        },
    )
    names = choose(contenders, store, streaming_python, ready, report)
    count_reads = count_reads and not ready  # the same files, read in the same ways
    folder = Path(data_dir) if data_dir else path.parent / f"photos-{store}"
    settings = Settings(
        names, batch_size, rounds, seconds, folder.absolute(), streaming_python, ready
    )
    if comm:
        comm.together(lambda: prepare(settings, count, store) if comm.rank == 0 else None)
        sizes = [comm.world_size]
        found = results_of(measure_group(settings, comm), comm.world_size)
        if comm.rank:
            return
    else:
        if count_reads and not storage_reads.available():
            report.notes.append(_STRACE_NOTE)
            count_reads = False
        prepare(settings, count, store)
        sizes = multiplicities
        found = measure_sizes(sizes, settings, store, count_reads, report)
    report.results = found
    report.layout = {
        "groups of": "/".join(map(str, sizes)),
        "batch": batch_size,
        "threads a rank": "cores / ranks, at least 1",
    }
    report.tables.append(table(found, settings))
    report.write(path)
    report.show(path)


if __name__ == "__main__":
    main()
