"""One rank of mosaicml-streaming, run by `rivals.Streaming` in an environment of its own.

With arguments FROM TO it instead turns the photographs of a folder into that library's format.
Lines of JSON come in (settings, then numbers of batches) and go out.
"""

import io
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

# PyPI's torchvision declares these operators in a library that does not load beside a PyTorch that
# was built for CPUs only, and is not imported without them. Nothing here calls them.
OPERATOR = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
if torch.version.cuda is None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # they go when it goes
    for name in ("nms", "qnms"):
        library.define(name + OPERATOR)

from streaming import MDSWriter, StreamingDataset  # noqa: E402
from torchvision import transforms  # noqa: E402

_EPOCH = 100_000  # batches; longer than any benchmark, so that no turn meets its end


class Photographs(StreamingDataset):
    """Photographs and labels.

    Args:
        transform: what is made of a Pillow image.
        settings: of StreamingDataset.
    """

    def __init__(self, transform, **settings):
        super().__init__(**settings)
        self.transform = transform

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return self.transform(Image.open(io.BytesIO(sample["jpeg"]))), sample["label"]


def decoded(image):
    """uint8 [375, 500, 3]."""
    return torch.from_numpy(np.array(image))


def ready(side, mean, std):
    """float32 [3, side, side]: torchvision's recipe for ImageNet."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(side),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )


def write(folder: Path, to: Path) -> None:
    """Copies photographs as they are."""
    with MDSWriter(out=str(to), columns={"jpeg": "bytes", "label": "int"}) as out:
        for i, path in enumerate(sorted(folder.rglob("*.JPEG"))):
            out.write({"jpeg": path.read_bytes(), "label": i})


def send(number) -> None:
    """A signal to the processes that read."""
    for child in multiprocessing.active_children():
        os.kill(child.pid, number)


def main() -> None:
    """Answers each number of batches by the times at which they came.

    Between turns nobody reads: two batches a process ahead are seconds of work, which the next
    contender would pay for.
    """
    answers, sys.stdout = sys.stdout, sys.stderr
    settings = json.loads(sys.stdin.readline())
    dataset = Photographs(
        ready(**settings["ready"]) if settings["ready"] else decoded,
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
    answer = "ready"
    try:
        while True:
            send(signal.SIGSTOP)
            print(json.dumps(answer), file=answers, flush=True)
            if not (line := sys.stdin.readline()):
                break
            send(signal.SIGCONT)
            answer = []
            for _ in range(json.loads(line)):
                next(batches)
                answer.append(time.perf_counter())
    finally:
        send(signal.SIGCONT)  # they end with the loader, which one that stands still could not


if __name__ == "__main__":
    if len(sys.argv) == 3:
        write(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        main()
