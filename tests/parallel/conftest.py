"""Training runs and traces that several tests look at, made once for each number of ranks."""

import functools
import json

import pytest

from tests.parallel.ranks import PROGRAMS, TEMPLATE, WORLD_SIZES, program, warm

# Buckets so small that there are several.
SAME = {"batch_size": 192, "val_samples": 100, "steps": 3, "trace": True, "bucket_mb": 0.05}
# All that moves weights otherwise than SGD does, or moves something else with them.
ADAMW = {**SAME, "precision": "fp64", "optimizer": "adamw", "lr_scale": 0.02, "clip_norm": 0.5}
ADAMW |= {"warmup_epochs": 0.0, "weight_decay": 0.1, "ema": 0.2}
# Two groups where there are ranks for them. Measured in the first and the third step.
MATCHED = {**SAME, "precision": "fp64", "batch_size": 64, "optimizer": "lars", "norm_matching": 2}
MATCHED |= {
    "manifold_mixup": 0.5,
    "lr_scale": "linear",
    "lr_batch_size": 8,
    "trust": 0.02,
    "warmup_steps": 1,
}
NOISY = f"{PROGRAMS / 'noisy.py'}:network"
# Each run costs its ranks the building of a graph, so the larger worlds do fewer of them.
SINGLE, RESUMED = (1, 2, 4), (1, 2)


def matched(ranks):
    return {**MATCHED, "group_size": max(1, ranks // 2)}


def plans(ranks):
    """Name and changes of the runs; microbatches are ghost batches of 32 where nothing is said."""
    if ranks not in WORLD_SIZES:
        return []
    planned = [["fp64", {**SAME, "precision": "fp64"}]]
    if ranks in SINGLE:
        planned += [
            ["fp32", {**SAME, "repeatable": True}],
            ["adamw", ADAMW],
            ["matched", matched(ranks)],
        ]
    if ranks in RESUMED:
        at_once = {**SAME, "precision": "fp64", "microbatch": 2 * 192 // ranks, "bucket_mb": 0.0}
        parts = {**SAME, "batch_size": 64, "train_samples": 350}
        planned += [["at_once", at_once], ["parts", {**parts, "steps": 3}]]
        planned += [["parts", {**parts, "steps": 8}], ["whole", {**parts, "steps": 8}]]
    noise = {**SAME, "precision": "fp64", "model": NOISY, "drop_path": 0.4, "drop_path_epochs": 0.1}
    if ranks in SINGLE:
        planned += [["noise", noise]]
    if ranks == 2:
        planned += [["bf16_sent", {**SAME, "allreduce_dtype": "bf16"}]]
        planned += [["noise_again", {**noise, "recompute": True, "microbatch": 192}]]
        planned += [["noise_parts", {**noise, "steps": steps}] for steps in (2, 3)]
        planned += [["again", {**SAME, "precision": "fp64", "recompute": True}]]
        planned += [["adamw_parts", {**ADAMW, "steps": steps}] for steps in (2, 3)]
        planned += [["matched_parts", {**matched(ranks), "steps": steps}] for steps in (1, 3)]
    return planned


@pytest.fixture(scope="session", autouse=True)
def template():
    """The process that warm ranks come from ends with the session."""
    yield
    while TEMPLATE:
        TEMPLATE.pop().close()


@pytest.fixture(scope="session")
def worlds(tmp_path_factory):
    """What `programs/world.py` leaves on so many ranks: folders `runs` and `layouts`."""

    @functools.cache
    def made(ranks):
        folder = tmp_path_factory.mktemp(f"world-{ranks}")
        program("world.py", ranks, folder, json.dumps(plans(ranks)), timeout=600, run=warm)
        return folder

    return made


@pytest.fixture
def runs(worlds):
    """The folder of all planned runs on so many ranks."""
    return lambda ranks: worlds(ranks) / "runs"


@pytest.fixture
def traces(worlds):
    """The folder with the trace of every allowed layout on so many ranks."""
    return lambda ranks: worlds(ranks) / "layouts"
