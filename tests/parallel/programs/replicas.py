"""Replicas that would start or go apart. OUT TRIES

First some ranks draw random numbers while they open the data, as the one does that prepares a
dataset: all must start with the weights of the seed alone. Then the weights of one rank are moved:
the run must end on all ranks before anything is saved, naming the rank.
"""

import random
import sys
import threading
from pathlib import Path

import shallow  # noqa: F401  builds its networks in no time

from ba_dist import training
from ba_dist.comm import start
from ba_dist.config import Config, override
from ba_dist.errors import UserError
from ba_dist.health import inject
from ba_dist.run import checkpoint

SMALL = {
    "dataset": "synthetic", "image_size": 8, "image_channels": 1, "train_samples": 96,
    "val_samples": 10, "batch_size": 30, "multiplicity": 1, "trace": True,
}  # fmt: skip
EVERY = 4

out, tries = Path(sys.argv[1]), int(sys.argv[2])
comm = start()
opened = training.open_dataset


def starts_alike(attempt: int) -> str:
    """The digest of the weights at the start, after rank `attempt` has drawn some numbers."""

    def drawing(*arguments):
        if comm.rank == attempt:
            random.random()
        return opened(*arguments)

    training.open_dataset = drawing
    run = out / f"drawn-{attempt}"
    training.train(override(Config("drawn"), {**SMALL, "steps": 1, "run_dir": str(run)}))
    training.open_dataset = opened
    return (run / "trace" / f"rank-{comm.rank:05d}.jsonl").read_text().splitlines()[0]


def is_caught(attempt: int) -> bool:
    victim, step = attempt % comm.world_size, 2 + attempt % 7
    run = out / f"split-{attempt}"
    changes = {**SMALL, "steps": 40, "checkpoint_every": EVERY, "run_dir": str(run)}
    try:
        training.train(override(Config("split"), changes), inject.parse(f"split@{step}:{victim}"))
    except UserError as error:
        # No thread may be in an exchange when MPI is ended.
        ours = {"augment", "group-reader", "group-gather", "watchdog"}
        left = ours & {thread.name for thread in threading.enumerate()}
        newest = checkpoint.newest(checkpoint.folder_of(run))[0]
        good = (newest.step if newest else 0) < step
        told = f"different weights: rank {victim} on {comm.host} (not those of the other"
        return error.agreed and not left and good and told in str(error)
    return False


lines = [starts_alike(attempt) for attempt in (-1, 0, 1)]
print(f"rank {comm.rank} starts alike: {len(set(lines)) == 1} {lines[0]}", flush=True)
good = sum(is_caught(attempt) for attempt in range(tries))
print(f"rank {comm.rank} caught: {good} of {tries}", flush=True)
