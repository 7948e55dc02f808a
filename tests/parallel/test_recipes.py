"""Every recipe runs on two ranks with M = 2: its loss falls, and its trace is clean.

`make test` has the light ones, `make smoke` the others. Recipes whose smoke runs are the same, such
as those of CIFAR-10 and CIFAR-100 on one network, are run once.
"""

import dataclasses
import functools
import json

import pytest

from ba_dist.analysis.audit import audit
from ba_dist.config import BASELINES
from ba_dist.recipes import RECIPES, recipe, smoke_of
from tests.parallel.jobs import metrics
from tests.parallel.ranks import program, warm

LIGHT = ("quickstart", "resnet44-cifar10")


def distinct():
    """Of the recipes with equal smoke runs the first."""
    found = {}
    for name in RECIPES:
        found.setdefault(dataclasses.replace(smoke_of(recipe(name)), recipe=""), name)
    return list(found.values())


HEAVY = [name for name in distinct() if name not in LIGHT]


@pytest.fixture(scope="module")
def smoked(tmp_path_factory):
    """The folder of the smoke runs of these (recipe, baseline), which are started together."""

    @functools.cache
    def made(*runs):
        folder = tmp_path_factory.mktemp("smoke")
        program("smoking.py", 2, folder, json.dumps(runs), timeout=1500, run=warm)
        return folder

    return made


def assert_learned(folder):
    losses = [event["loss"] for event in metrics(folder) if event["event"] == "step"]
    steps, problems = audit(folder, 4, lambda note: None)
    assert (len(losses), steps, problems) == (8, 8, [])
    # A step or two at each end, since those of one epoch hold different samples.
    assert sum(losses[-2:]) < sum(losses[:2]), losses


def test_the_light_ones_are_there():
    assert set(LIGHT) <= set(distinct())


@pytest.mark.mpi
@pytest.mark.parametrize("name", LIGHT)
def test_a_recipe_learns(smoked, name):
    folder = smoked(*((light, "none") for light in LIGHT), *BASES) / f"{name}-smoke"
    assert_learned(folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["multiplicity"], summary["group_size"], summary["smoke"]) == (2, 2, True)


BASES = tuple(("quickstart", baseline) for baseline in BASELINES[1:])


@pytest.mark.mpi
@pytest.mark.parametrize("baseline", BASELINES[1:])
def test_a_baseline_learns_and_says_what_it_is(smoked, baseline):
    made = smoked(*((light, "none") for light in LIGHT), *BASES)
    folder = made / f"quickstart-{baseline}-smoke"
    assert_learned(folder)
    summary = json.loads((folder / "summary.json").read_text())
    tree = json.loads((folder / "config.json").read_text())["config"]
    assert (summary["baseline"], tree["baseline"]) == (baseline, baseline)
    instances = {"fixed-steps": 32, "fixed-samples": 64, "fixed-compute": 32}
    assert summary["instances"] == instances[baseline]


@pytest.mark.mpi
@pytest.mark.smoke
@pytest.mark.parametrize("name", HEAVY)
def test_a_heavy_recipe_learns(smoked, name):
    assert_learned(smoked((name, "none")) / f"{name}-smoke")
