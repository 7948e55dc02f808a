"""Trains the planned runs, then writes the trace of every allowed layout on these ranks.

OUT and a JSON list of [name, changes]. OUT/runs gets a folder a run, OUT/layouts one a layout.
Both in one program, because starting TensorFlow on six ranks takes longer than either.
"""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

from ba_dist import runtime
from ba_dist.comm import start
from ba_dist.config import COMPUTATION, Config, override, to_dict
from ba_dist.recipes import recipe
from ba_dist.rules.layout import Layout, group_sizes

comm = start()
runtime.prepare(comm.node.rank, comm.node.size, comm.cores)  # faster than by itself

from ba_dist.data.augment import Augmentation  # noqa: E402
from ba_dist.data.catalog import digest, open_source  # noqa: E402
from ba_dist.data.group.group_reader import GroupReader  # noqa: E402
from ba_dist.data.group.record_exchange import ReadMode  # noqa: E402
from ba_dist.data.pipeline import InputPipeline  # noqa: E402
from ba_dist.rules.order import GroupSampler, shuffle  # noqa: E402
from ba_dist.run import trace  # noqa: E402
from ba_dist.tasks.classification import Classification  # noqa: E402
from ba_dist.training import train  # noqa: E402

STEPS = 4
GHOST = 4

out, plans = Path(sys.argv[1]), json.loads(sys.argv[2])
for name, changes in plans:
    train(override(recipe("quickstart"), {**changes, "run_dir": str(out / "runs" / name)}))

# Nothing is trained on the layouts, so the digest of the weights is that of none.
NO_WEIGHTS = hashlib.sha256().hexdigest()
SMALL = {"dataset": "synthetic", "image_size": 5, "image_channels": 1}
AUGMENT = {"pad_crop": 1, "flip": True, "cutout": 2}


def write(layout: Layout, folder: Path, mode: ReadMode, order: str) -> None:
    rank, seed = comm.rank, 11
    # Three steps an epoch, so that the trace ends in the second; one sample is left over.
    samples = 3 * layout.batch_size + 1
    blocks = {"shuffle": order, "shuffle_block": 3, "shuffle_window": 2}
    values = {**SMALL, **AUGMENT, **blocks, "seed": seed, "train_samples": samples}
    config = override(Config("test"), values)
    source = open_source(config.data, "train")
    augmentation = Augmentation(config.augment, source.info)
    blocks_of_three = shuffle(order, 3, 2)
    sampler = GroupSampler(samples, seed, layout, layout.group(rank), order=blocks_of_three)
    reader = GroupReader(source, sampler, comm.group(layout), mode, first=0, last=STEPS)
    (folder / "trace").mkdir(parents=True, exist_ok=True)
    facts = {
        "config": to_dict(config),
        "computation": COMPUTATION,
        "layout": dataclasses.asdict(layout),
        "data": {"train_digest": digest(source), "info": dataclasses.asdict(source.info)},
        "samples": samples,
        "steps_per_epoch": 3,
    }
    (folder / "config.json").write_text(json.dumps(facts)) if rank == 0 else None
    with (folder / "trace" / f"rank-{rank:05d}.jsonl").open("w") as file:
        task = Classification(augmentation)
        pipeline = InputPipeline(reader, task, layout, rank=rank, seed=seed, traced=True)
        for batch in pipeline:
            entry = trace.entry(batch, task, layout.group(rank), layout.lane(rank))
            if entry["step"] % 3 == 0:
                weights = {"weights_after": entry["step"], "sha256": NO_WEIGHTS}
                file.write(json.dumps(weights) + "\n")
            file.write(json.dumps(entry) + "\n")
        pipeline.close()


modes = [
    ReadMode(io, exchange)
    for io in ("replicate", "broadcast", "cooperative")
    for exchange in ("auto", "encoded", "decoded")
]
number = 0
for multiplicity in (1, 2, 3, 4, 6):
    for size in group_sizes(comm.world_size, multiplicity):
        groups = comm.world_size // size
        for samples in (3, 2 * GHOST):
            layout = Layout(comm.world_size, multiplicity, samples * groups, size, GHOST)
            name = f"M{multiplicity}-R{size}-B{layout.batch_size}"
            order = ("full", "block")[number % 2]
            write(layout, out / "layouts" / name, modes[number % len(modes)], order)
            number += 1
