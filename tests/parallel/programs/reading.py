"""Reads the same steps in each mode; every rank writes what it got and what it cost.

OUT: a folder with records.array_record in it. Reads are counted by the kernel (/proc/self/io).
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np

from ba_dist.comm import start
from ba_dist.data.array_record import ArrayRecordSource
from ba_dist.data.group_reader import GroupSampler, read_group
from ba_dist.data.sources import DatasetInfo
from ba_dist.topology import Layout

STEPS = 3


def kernel_bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def decode(record: bytes):
    height = record[0]
    pixels = np.frombuffer(record, np.uint8, offset=2)
    return pixels.reshape(height, -1, 3), record[1]


folder = Path(sys.argv[1])
comm = start()
multiplicity = 6
layout = Layout(
    comm.world_size, multiplicity, batch_size=8 * comm.world_size // math.gcd(6, comm.world_size)
)
channel = comm.group(layout)
info = DatasetInfo("test", (0, 0, 3), 256, (0.5,) * 3, (0.5,) * 3)
result = {"group": layout.group(comm.rank), "group_size": layout.group_size, "modes": {}}
for mode in ("replicate", "broadcast", "cooperative"):
    source = ArrayRecordSource(info, [folder / "records.array_record"], decode)
    sampler = GroupSampler(len(source), 5, layout, layout.group(comm.rank))
    source.read(np.arange(1))  # opens the file and reads its index
    source.counters.records_read = 0
    channel.barrier()
    before = kernel_bytes_read()
    batches = []
    for step in range(STEPS):
        epoch, ids = sampler(step)
        images, labels = read_group(source, ids, channel, mode)
        pixels = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        shapes = [list(image.shape) for image in images]
        batches.append([epoch, ids.tolist(), pixels, shapes, labels.tolist()])
    result["modes"][mode] = {
        "batches": batches,
        "kernel_bytes": kernel_bytes_read() - before,
        "records_read": source.counters.records_read,
        "records_decoded": source.counters.records_decoded,
    }
(folder / f"rank-{comm.rank}.json").write_text(json.dumps(result))
