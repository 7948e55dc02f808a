"""Measures the gradients of a run; rank 0 prints all of it as JSON. OUT

The run is trained where it is not there yet: its copies differ by dropout, drop-path and mixup too.
"""

import dataclasses
import json
import sys
from pathlib import Path

from ba_dist import runtime
from ba_dist.analysis.correlation import correlate
from ba_dist.analysis.variance import measure_variance
from ba_dist.comm import start
from ba_dist.config import override
from ba_dist.errors import UserError
from ba_dist.recipes import recipe
from ba_dist.training import train

SMALL = {
    "train_samples": 600, "val_samples": 50, "batch_size": 32, "ghost_batch_size": 16, "steps": 6,
    "drop_path": 0.4, "mixup": 0.2, "model": f"{Path(__file__).parent / 'noisy.py'}:network",
}  # fmt: skip

run, comm = Path(sys.argv[1]) / "run", start()
if not run.exists():
    comm.world.barrier()
    # What is set first in a process stays; where nothing is trained the measuring sets it.
    runtime.prepare(comm.node.rank, comm.node.size, comm.cores, threads=1)
    train(override(recipe("quickstart"), {**SMALL, "run_dir": str(run)}))
done: list[int] = []
found = {
    way: correlate(run, pairs=7, normalised=way, done=done.append).as_dict()
    for way in ("moving", "ghost")
}
variances = measure_variance(run, ["initial", "newest"], repeats=4)
parts = [dataclasses.asdict(part) for part in variances.measured]
counts = comm.sum([sum(done)]).tolist()
messages = []
for words in ({"which": ["5"]}, {"pairs": 500}):
    try:
        correlate(run, **words)
    except UserError as error:
        assert error.agreed
        messages.append(str(error))
if comm.rank == 0:
    print(json.dumps([found, parts, variances.as_dict(), counts, messages]), flush=True)
