"""Opens a dataset on every rank and writes down what it got and looked at, or the error.

OUT: a folder with `data` in it; ranks whose folder `data-RANK` is there look at that instead. Each
rank has a cache of its own. A second word says how many ranks count as a node. A third one names
the dataset, or is `train`, to have `quickstart` train on it.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from ba_dist.comm import Channel, Comm, start
from ba_dist.comm import channel as comm_channel
from ba_dist.config import Data, override
from ba_dist.data import catalog
from ba_dist.errors import UserError
from ba_dist.recipes import recipe

folder = Path(sys.argv[1])
ranks_a_node, name = [*sys.argv[2:], *["", "imagenet"][len(sys.argv) - 2 :]]
comm = start()
if ranks_a_node:
    Comm.node = Channel(comm._mpi.Split(comm.rank // int(ranks_a_node)))
own = folder / f"data-{comm.rank}"
os.environ["BA_DIST_DATA"] = str(own if own.is_dir() else folder / "data")
os.environ["XDG_CACHE_HOME"] = str(folder / f"cache-{comm.rank}")
comm_channel.LARGEST_MESSAGE = 1000
looked: dict[str, list[str]] = {"listed": [], "opened": []}


def notice(event: str, words: tuple[object, ...]) -> None:
    kind = {"os.scandir": "listed", "os.listdir": "listed", "open": "opened"}.get(event)
    if kind and isinstance(words[0], str | bytes) and str(folder) in os.fsdecode(words[0]):
        looked[kind].append(os.fsdecode(words[0]).removeprefix(f"{folder}/"))


sys.addaudithook(notice)
result: dict[str, object] = {}
try:
    if name == "train":
        from ba_dist.training import train

        changes = {"dataset": "imagenet", "train_samples": 5, "batch_size": comm.world_size}
        train(override(recipe("quickstart"), {**changes, "run_dir": str(folder / "run")}))
    else:
        dataset = catalog.open_dataset(Data(dataset=name, train_samples=5), comm)
        result["looked"] = {kind: list(paths) for kind, paths in looked.items()}
        samples = [
            source.decode(source.read(i))
            for source in (dataset.train, dataset.validation)
            for i in range(len(source))
        ]
        result["samples"] = [[hashlib.sha256(image).hexdigest(), label] for image, label in samples]
        result["origin"] = dataset.origin
except UserError as error:
    result["error"] = str(error)
    result["agreed"] = error.agreed
(folder / f"rank-{comm.rank}.json").write_text(json.dumps(result))
