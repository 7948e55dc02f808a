"""Opens a dataset on every rank and writes down what it got, or the error.

OUT: a folder with `data` in it; ranks whose folder `data-RANK` is there look at that instead.
A second word says how many ranks count as a node. With a third one, `quickstart` trains on it.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from ba_dist.comm import Channel, Comm, start
from ba_dist.config import Data, override
from ba_dist.data import catalog
from ba_dist.errors import UserError
from ba_dist.recipes import recipe

folder, ranks_a_node, training = Path(sys.argv[1]), sys.argv[2:3], sys.argv[3:]
comm = start()
if ranks_a_node:
    Comm.node = Channel(comm._mpi.Split(comm.rank // int(ranks_a_node[0])))
own = folder / f"data-{comm.rank}"
os.environ["BA_DIST_DATA"] = str(own if own.is_dir() else folder / "data")
result = {}
try:
    if training:
        from ba_dist.train import train

        changes = {"dataset": "imagenet", "train_samples": 5, "batch_size": comm.world_size}
        train(override(recipe("quickstart"), {**changes, "run_dir": str(folder / "run")}))
    else:
        dataset = catalog.open_dataset(Data(dataset="imagenet", train_samples=5), comm)
        result["digests"] = []
        for source in (dataset.train, dataset.validation):
            for i in range(len(source)):
                image, label = source.decode(source.read(i))
                result["digests"].append([hashlib.sha256(image).hexdigest(), label])
        result["origin"] = dataset.origin
except UserError as error:
    result["error"] = str(error)
    result["agreed"] = error.agreed
(folder / f"rank-{comm.rank}.json").write_text(json.dumps(result))
