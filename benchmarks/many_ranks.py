"""What the code does on a rank of 10^5, run here on one core.

    python benchmarks/many_ranks.py

Nothing is started on those ranks: each row runs what one rank of them runs, with real objects of
that many ranks. A row says how often a rank does it. Nothing of a step may grow with the number of
ranks, but for the allreduce itself; what is done once, in an audit or where something is wrong may.
"""

import gc
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from harness import (
    Numbers,
    Report,
    Table,
    count_option,
    measure,
    one_message,
    output_option,
    output_path,
)

from ba_dist import runtime
from ba_dist.analysis.rules import Checker, Rules
from ba_dist.comm.vote import PHASES, Vote, hear, tell
from ba_dist.health.stragglers import StragglerWatch, slow_links, stragglers
from ba_dist.rules.keys import augmentation_keys
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import GroupSampler, Permutation

runtime.quiet()

SAMPLES, COPIES, INSTANCES = 10**9, 8, 32  # N, M, b·K of a rank
AUDITED = 10**4  # ranks whose lines are really checked; more are this many times as long
_ROW_OF_AUDIT = 2**16  # bytes that `ba-dist audit` keeps a rank
Work = Callable[[], Any]


def layout_of(ranks: int) -> Layout:
    """W ranks in groups of M, so that each has 32 instances."""
    return Layout(ranks, COPIES, INSTANCES * (ranks // COPIES))


def parts(ranks: int) -> dict[str, tuple[str, Work]]:
    """Name → (how often, what a rank does)."""
    layout, rank = layout_of(ranks), ranks // 2
    sampler = GroupSampler(SAMPLES, 0, layout, layout.group(rank), order=Permutation)
    ids, copies = sampler(0)[1], np.zeros(INSTANCES, np.int64)
    row = ranks * tell(Vote(seconds=(0.1, 0.2, 0.3, 0.4, 0.9)))
    watch = StragglerWatch()
    hosts = [f"nid{i // 4:06d}" for i in range(ranks)]
    seconds = np.random.default_rng(0).uniform(0.1, 0.11, ranks)
    one = (0.0, 0.1, 0.3, 0.1)
    return {
        "layout": ("once", lambda: layout_of(ranks).rows(rank)),
        "sampler": (
            "once",
            lambda: GroupSampler(SAMPLES, 0, layout, layout.group(rank), order=Permutation),
        ),
        "order: ids of a step": ("step", lambda: sampler(7)),
        "keys of a step": ("step", lambda: augmentation_keys(0, 0, ids, copies)),
        "vote: tell and hear": ("step", lambda: hear(tell(Vote(seconds=(*one, 0.5))))),
        "stragglers: add and look": (
            "step",
            lambda: (watch.look(hear(row)[1], lambda told: np.zeros((1, 5))), watch.add(one)),
        ),
        "stragglers: who it is": (
            "20 steps, if one is",
            lambda: stragglers(np.zeros(ranks), seconds, seconds, 0.5),
        ),
        "links: whose is slow": (
            "200 steps, if slow",
            lambda: slow_links(np.full(ranks, 1e-3), hosts),
        ),
        "config.json: names of hosts": ("once, rank 0", lambda: json.dumps(hosts)),
    }


def seconds_of(work: Work, trials: int) -> float:
    """The median time of a call."""
    found = []
    for _ in range(trials):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return measure(found).median


def peak_of(work: Work) -> int:
    """The most bytes that it holds at a time."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def audit_seconds(ranks: int) -> float:
    """Of checking one step: ids, copies, keys, groups, from lines that are as they should be."""
    layout = layout_of(min(ranks, AUDITED))
    rules = Rules([(0, layout)], 0, SAMPLES, SAMPLES // layout.batch_size)
    entries: list[Any] = []
    for rank in range(layout.world_size):
        sampler = GroupSampler(SAMPLES, 0, layout, layout.group(rank), order=Permutation)
        ids = sampler(0)[1]
        copies = np.full(len(ids), layout.copies(rank)[0])
        keys = augmentation_keys(0, 0, ids, copies)
        entries.append(
            {
                "epoch": 0, "group": layout.group(rank), "lane": layout.lane(rank),
                "sample_ids": ids.tolist(), "copies": copies.tolist(),
                "augment_keys": [f"{key:016x}" for key in keys], "batch_sha256": "0",
                "instance_sha256": ["0"] * len(ids), "replaced": {},
            }
        )  # fmt: skip
    begun = time.perf_counter()
    problems, _ = Checker(rules).check(0, entries)
    taken = time.perf_counter() - begun
    assert problems == []
    return taken * ranks / layout.world_size


def sizes(ranks: int) -> dict[str, tuple[str, float]]:
    """Name → (how often, bytes or a number), counted and not timed."""
    row = tell(Vote()).size * 4
    return {
        "bytes of the vote in the allreduce": ("step", row),
        "bytes that a table of seconds would be": ("-", 4 * len(PHASES) * ranks),
        "bytes gathered if one may be slow": ("20 steps, if one is", 8 * len(PHASES) * ranks),
        "bytes gathered to compare replicas": ("checkpoint", 8 * ranks),
        "files that a rank opens, of 1024 shards": ("once", 1024),
        "files that all ranks open, of 1024 shards": ("once", 1024 * ranks),
        "files in the run directory, no trace": ("once", 10),
        "files of a trace": ("once", ranks),
        "bytes that an audit keeps": ("audit", _ROW_OF_AUDIT * ranks),
    }


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--ranks",
    type=Numbers(),
    default="1000,10000,100000",
    show_default=True,
    help="W, multiples of 8.",
)
@count_option("--trials", 20, "Calls of each part.")
@output_option
@one_message
def main(ranks, trials, output):
    """Measure what a rank of very many does: time and memory of each part."""
    report = Report("many_ranks", {"ranks": ranks, "trials": trials})
    columns = [f"{n:,}" for n in ranks]
    made = Table("Microseconds of a rank", ["part", "how often", *columns])
    memory = Table("Most kilobytes at a time", ["part", "how often", *columns])
    known = {n: parts(n) for n in ranks}
    for name, (often, _) in known[ranks[0]].items():
        taken = [1e6 * seconds_of(known[n][name][1], trials) for n in ranks]
        peaks = [peak_of(known[n][name][1]) / 1e3 for n in ranks]
        made.add(name, often, *taken)
        memory.add(name, often, *peaks)
        report.results.append({"part": name, "often": often, "microseconds": taken, "kB": peaks})
    audits = [1e6 * audit_seconds(n) for n in ranks]
    made.add("audit of a step of all ranks", "audit", *audits)
    counts = Table("Counted", ["what", "how often", *columns])
    for name, (often, _) in sizes(1).items():
        counts.add(name, often, *(f"{sizes(n)[name][1]:,.0f}" for n in ranks))
    report.tables += [made, memory, counts]
    report.notes.append(f"more than {AUDITED} ranks of an audit are extrapolated from so many")
    path = output_path("many_ranks", output)
    report.write(path)
    report.show(path)


if __name__ == "__main__":
    main()
