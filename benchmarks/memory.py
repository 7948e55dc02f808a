"""The most memory that a training step needs: whole, in microbatches, with recomputation.

    python benchmarks/memory.py --model resnet50 --image-size 224 --instances 64

Each way is a process of its own, which trains a few steps on one batch. The peak is that of the
process, without what it held before the first step (TensorFlow, the network). On a GPU it is the
peak of TensorFlow's allocator.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import training
from harness import (
    Report,
    Table,
    count_option,
    image_size_option,
    measure,
    model_option,
    one_message,
    output_option,
    output_path,
)

from ba_dist import runtime
from ba_dist.calibration.steps import CLASSES, train_step
from ba_dist.config import override
from ba_dist.errors import UserError

runtime.quiet()

_STEPS = 3


def ways(instances: int, smaller: int) -> list[dict[str, Any]]:
    """What is measured: whole, in microbatches, and both with recomputation."""
    sizes = dict.fromkeys([instances, min(instances, smaller)])
    return [
        {"microbatch": size, "recompute": recompute}
        for recompute in (False, True)
        for size in sizes
    ]


def peak_of(model: str, image_size: int, instances: int, way: dict[str, Any]) -> dict[str, Any]:
    """Trains in this process: seconds of a step, and MiB before and at most."""
    comm = training.join()
    layout = training.layout_for(instances, 1, 1, microbatch=way["microbatch"])
    config = training.configuration(model, image_size, "fp32")
    config = override(config, {"recompute": way["recompute"]})
    batches = training.fixed_batches(instances, image_size, 0)
    shape = (image_size, image_size, 3)
    train = train_step(comm, layout, config, shape, CLASSES)
    before, seconds = _mebibytes("VmRSS"), []
    for _ in range(_STEPS):
        begun = time.perf_counter()
        train(next(batches))
        seconds.append(time.perf_counter() - begun)
    most = _mebibytes("VmHWM")
    return {"before": before, "most": most, "seconds": measure(seconds[1:]).as_dict()}


def _mebibytes(name: str) -> float:
    """What Linux says of this process, or of the GPU: VmRSS now, VmHWM at most."""
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        found = tf.config.experimental.get_memory_info("GPU:0")
        return float(found["peak" if name == "VmHWM" else "current"]) / 2**20
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


def apart(case: dict[str, Any]) -> dict[str, Any]:
    """`peak_of` in a new process, whose peak is its own."""
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the measurement of {case} failed:\n{done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@click.command(context_settings={"max_content_width": 100})
@model_option
@image_size_option("Side in pixels.")
@count_option("--instances", 64, "b·K, of a rank.")
@count_option("--microbatch", 32, "The smaller one.")
@click.option("--case", hidden=True, help="Measure one way in this process.")
@output_option
@one_message
def main(model, image_size, instances, microbatch, case, output):
    """Measure the peak memory of a training step in four ways."""
    if case:
        print(json.dumps(peak_of(**json.loads(case))))
        return
    settings = {"model": model, "image_size": image_size, "instances": instances}
    report = Report("memory", settings, {"ranks": 1, "instances": instances})
    made = Table(
        f"Peak memory of a step of {model}, {instances} instances of {image_size}x{image_size}",
        ["microbatch", "recompute", "MiB", "x whole", "s/step", "+-"],
    )
    for way in ways(instances, microbatch):
        found = apart({**settings, "way": way})
        report.results.append({**way, **found})
        needed = [result["most"] - result["before"] for result in report.results]
        taken = found["seconds"]
        made.add(
            way["microbatch"],
            "yes" if way["recompute"] else "no",
            needed[-1],
            needed[-1] / needed[0],
            taken["median"],
            taken["deviation"],
        )
    report.tables.append(made)
    path = output_path("memory", output)
    report.write(path)
    report.show(path)


if __name__ == "__main__":
    main()
