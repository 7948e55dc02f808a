"""One rank of mosaicml-streaming, run by `rivals.Streaming` in an environment of its own.

With arguments FROM TO it instead turns the photographs of a folder into that library's format.
Lines of JSON come in (settings, then numbers of batches) and go out.
"""

import io
import json
import sys
import time
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

# The library imports torchvision for datasets that are not used here. PyPI's torchvision does not
# load beside a PyTorch that was built for CPUs only, so it gets two empty names instead.
NAMES = ("torchvision", "torchvision.transforms", "torchvision.datasets")
for name in (*NAMES, "torchvision.transforms.functional"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__spec__ = ModuleSpec(name, None)
sys.modules["torchvision.datasets"].VisionDataset = object
sys.modules["torchvision.transforms.functional"].to_tensor = None

from streaming import MDSWriter, StreamingDataset  # noqa: E402

_EPOCH = 100_000  # batches; longer than any benchmark, so that no turn meets its end


class Photographs(StreamingDataset):
    """Decoded photographs: uint8 [375, 500, 3] and a label."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return torch.from_numpy(np.array(Image.open(io.BytesIO(sample["jpeg"])))), sample["label"]


def write(folder: Path, to: Path) -> None:
    """Copies photographs as they are."""
    with MDSWriter(out=str(to), columns={"jpeg": "bytes", "label": "int"}) as out:
        for i, path in enumerate(sorted(folder.rglob("*.JPEG"))):
            out.write({"jpeg": path.read_bytes(), "label": i})


def main() -> None:
    """Answers each number of batches by the times at which they came."""
    answers, sys.stdout = sys.stdout, sys.stderr
    settings = json.loads(sys.stdin.readline())
    dataset = Photographs(
        local=settings["data_dir"],
        batch_size=settings["batch_size"],
        replication=settings["replication"],
        epoch_size=_EPOCH * settings["batch_size"],
        shuffle=False,
    )
    loader = torch.utils.data.DataLoader(
        dataset, settings["batch_size"], num_workers=settings["threads"], drop_last=True
    )
    batches = iter(loader)
    next(batches)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(json.loads(line)):
            next(batches)
            times.append(time.perf_counter())
        print(json.dumps(times), file=answers, flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        write(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        main()
