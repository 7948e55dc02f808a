"""Training runs and traces that several tests look at, made once for each number of ranks."""

import functools
import json

import pytest

from tests.parallel.ranks import TEMPLATE, WORLD_SIZES, program, warm

SAME = {"batch_size": 192, "val_samples": 100, "steps": 3, "trace": True}
# All that moves weights otherwise than SGD does, or moves something else with them.
ADAMW = {**SAME, "precision": "fp64", "optimizer": "adamw", "lr_scale": 0.02, "clip_norm": 0.5}
ADAMW |= {"warmup_epochs": 0.0, "weight_decay": 0.1, "ema": 0.2}
# Each run costs its ranks the building of a graph, so the larger worlds do fewer of them.
SINGLE, RESUMED = (1, 2, 4), (1, 2)


def plans(ranks):
    """Name and changes of the runs; microbatches are ghost batches of 32 where nothing is said."""
    if ranks not in WORLD_SIZES:
        return []
    planned = [["fp64", {**SAME, "precision": "fp64"}]]
    if ranks in SINGLE:
        planned += [["fp32", SAME], ["adamw", ADAMW]]
    if ranks in RESUMED:
        at_once = {**SAME, "precision": "fp64", "microbatch": 2 * 192 // ranks}
        parts = {**SAME, "batch_size": 64, "train_samples": 350}
        planned += [["at_once", at_once], ["parts", {**parts, "steps": 3}]]
        planned += [["parts", {**parts, "steps": 8}], ["whole", {**parts, "steps": 8}]]
    if ranks == 2:
        planned += [["again", {**SAME, "precision": "fp64", "recompute": True}]]
        planned += [["adamw_parts", {**ADAMW, "steps": steps}] for steps in (2, 3)]
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
