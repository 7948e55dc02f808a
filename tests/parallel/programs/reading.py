"""Reads the same steps from every source in each mode; every rank writes what it got and its cost.

FOLDER: with folder/, tfrecord/, array_record/ as tests/pictures.py makes them, and rotten/, a copy
of tfrecord/ with damaged records. OUT gets a file a rank. Reads are counted by the kernel
(/proc/self/io). RANKS: as if each so many ranks were a node, only cooperatively, and what is chosen
to be exchanged.
"""

import dataclasses
import json
import math
import sys
from itertools import product
from pathlib import Path

import numpy as np

from ba_dist.comm import channel as comm_channel
from ba_dist.comm import start
from ba_dist.config import Data
from ba_dist.data.catalog import open_dataset
from ba_dist.data.group.choice import choose
from ba_dist.data.group.group_reader import GroupReader
from ba_dist.data.group.record_exchange import ReadMode
from ba_dist.data.sources import ArraySource, ImageInfo, Workers
from ba_dist.data.sources.array_record import ArrayRecordSource
from ba_dist.data.sources.examples import Features
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import GroupSampler

STEPS = 5
PREFETCH = 2


def kernel_bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def read(source, layout, comm, channel, mode):
    """All steps of a mode: what each batch held, and what it cost."""
    sampler = GroupSampler(len(source), 5, layout, layout.group(comm.rank))
    source.decode(source.read(0))  # opens files, imports what it needs
    counted = dict(source.counters.as_dict())
    channel.barrier()
    before, sent = kernel_bytes_read(), channel.bytes_sent
    pool = Workers(3)
    reader = GroupReader(
        source,
        sampler,
        channel,
        mode,
        first=0,
        last=STEPS,
        prefetch=PREFETCH,
        workers=pool,
        sharing=comm.node.size,
    )
    batches = []
    for batch in reader:
        facts = [batch.epoch, batch.sample_ids.tolist(), batch.labels.tolist(), batch.sha256()]
        batches.append([*facts, sorted(batch.replaced.items())])
        reader.advance()
    reader.close()
    pool.close()
    counters = source.counters.as_dict()
    return {
        "batches": batches,
        "kernel_bytes": kernel_bytes_read() - before,
        "bytes_sent": channel.bytes_sent - sent,
        **{name: counters[name] - counted[name] for name in counted},
    }


def sources(comm):
    """Name → source; each holds what tests/pictures.py made of the same samples."""
    for form in ("folder", "tfrecord", "rotten"):
        yield form, open_dataset(Data("imagenet", str(folder / form)), comm).train
    info = ImageInfo("records", (0, 0, 3), 3, (0.5,) * 3, (0.25,) * 3)
    files = sorted((folder / "array_record").glob("train*"))
    yield "array_record", ArrayRecordSource(info, files, Features("image", "label", 0, 3).decode)
    yield "synthetic-jpeg", open_dataset(Data("synthetic-jpeg", train_samples=150), comm).train
    pixels = np.random.default_rng(0).integers(0, 256, (150, 5, 4, 3), np.uint8)
    array_info = ImageInfo("arrays", (5, 4, 3), 150, (0.5,) * 3, (0.25,) * 3)
    yield "arrays", ArraySource(array_info, pixels, np.arange(150), "some")


folder, out = Path(sys.argv[1]), Path(sys.argv[2])
comm = start()
size = math.gcd(6, comm.world_size)
layout = Layout(comm.world_size, 6, batch_size=8 * comm.world_size // size)
ios, on_a_node = ["replicate", "broadcast", "cooperative"], 0
if len(sys.argv) > 3:
    ios, on_a_node = ["cooperative"], int(sys.argv[3])
    comm_channel.on_this_node = lambda ranks: ranks.Split(comm.rank // on_a_node)
channel = comm.group(layout)
result = {"group": layout.group(comm.rank), "group_size": layout.group_size, "sources": {}}
for name, source in sources(comm):
    result["sources"][name] = {
        f"{io} {exchange}": read(
            source, layout, comm, channel, ReadMode(io, exchange, skip=name == "rotten")
        )
        for io, exchange in product(ios, ("encoded", "decoded"))
    }
    if on_a_node:
        before, pool = source.counters.as_dict(), Workers(3)
        chosen = choose(ReadMode(), source, comm, layout, pool)
        pool.close()
        result["sources"][name]["chosen"] = dataclasses.asdict(chosen)
        assert source.counters.as_dict() == before
(out / f"rank-{comm.rank}.json").write_text(json.dumps(result))
