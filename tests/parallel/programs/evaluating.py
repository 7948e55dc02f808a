"""Asks a run to stop while it evaluates, again and again; then lets it end. OUT TRIES

OUT/run is stopped in every attempt, in the evaluation of an epoch's end, at another batch and on
another rank each time; every second attempt lets one evaluation end before. OUT/whole is the same
run, undisturbed.
"""

import os
import signal
import sys
import time
from pathlib import Path

import shallow  # noqa: F401  builds its networks in no time

from ba_dist import evaluate
from ba_dist.comm import start
from ba_dist.config import Config, override
from ba_dist.data import pipeline
from ba_dist.health import watchdog
from ba_dist.run import checkpoint
from ba_dist.training import train

# Two steps an epoch; an evaluation of 20 batches on each of two ranks.
SMALL = {
    "dataset": "synthetic", "image_size": 8, "image_channels": 1, "train_samples": 64,
    "val_samples": 1_000, "batch_size": 32, "multiplicity": 2, "epochs": 12, "trace": True,
    "checkpoint_every": 1000,
}  # fmt: skip

out, tries = Path(sys.argv[1]), int(sys.argv[2])
evaluate._MOST_ROWS = 25
comm = start()
beat, close, write = watchdog.Watchdog.beat, pipeline.InputPipeline.close, checkpoint.save
folder = checkpoint.folder_of(out / "run")
at_close: list[int] = []


def closing(self):
    """What is on disk when the input's threads and memory go."""
    if comm.rank == 0:
        at_close.append(checkpoint.newest_good(folder).step)
    close(self)


def slowly(*arguments):
    time.sleep(0.1)
    return write(*arguments)


pipeline.InputPipeline.close, checkpoint.save = closing, slowly


def run(name: str):
    return train(override(Config("evaluated"), {**SMALL, "run_dir": str(out / name)}))


def is_stopped(attempt: int) -> bool:
    """Stops at a batch of the first or second evaluation of a job, on one of the ranks."""
    batches = []
    at = 1 + attempt * 7 % 19 + 20 * (attempt % 2)

    def noted(self, phase, step):
        beat(self, phase, step)
        if phase == "evaluating":
            batches.append(step)
            if len(batches) == at and comm.rank == attempt % comm.world_size:
                os.kill(os.getpid(), signal.SIGTERM)

    watchdog.Watchdog.beat = noted
    outcome = run("run")
    watchdog.Watchdog.beat = beat
    comm.world.barrier()  # rank 0 has written it
    saved = checkpoint.newest_good(folder)
    return bool(
        outcome.summary is None
        and (comm.rank != 0 or at_close.pop() == outcome.step)
        and outcome.step == saved.step == batches[-1]
        and saved.step % 2 == 0
        and len(batches) <= at + 1
    )


good = sum(is_stopped(attempt) for attempt in range(tries))
print(f"rank {comm.rank}: {good} of {tries}", flush=True)
pipeline.InputPipeline.close, checkpoint.save = close, write
for name in ("run", "whole"):
    assert run(name).summary is not None
