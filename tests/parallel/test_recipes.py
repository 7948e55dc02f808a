"""Every recipe runs on two ranks with M = 2: its loss falls, and its trace is clean.

All but the first test are of `make smoke`. The light ones are started together. Recipes whose smoke
runs differ in nothing but their rates are alike, and the first of them is run: `STANDS_FOR`.
"""

import dataclasses
import functools
import json

import pytest

from ba_dist.analysis.audit import audit
from ba_dist.config import BASELINES, Config, options, override
from ba_dist.recipes import RECIPES, recipe, smoke_of
from tests.parallel.jobs import metrics
from tests.parallel.ranks import program, warm

# Recipe that is run → recipes that it stands for.
STANDS_FOR = {
    "quickstart": (),
    "resnet44-cifar10": ("resnet44-cifar100", "resnet44-cifar10-m10", "resnet44-cifar10-23epochs"),
    "vgg16-cifar10": ("vgg16-cifar100",),
    "wrn28-10-cifar10": ("wrn28-10-cifar100",),
    "darts-cifar10": ("darts-cifar10-m10",),
    "amoebanet-cifar10": ("amoebanet-cifar10-m10",),
    "densenet100-12-cifar100": (),
    "alexnet-imagenet": (),
    "mobilenet-imagenet": (),
    "resnet50-imagenet": (
        "resnet50-imagenet-m10",
        "resnet50-imagenet-40epochs",
        "resnet50-imagenet-23epochs",
        "resnet50-imagenet-large",
    ),
    "transformer-wmt16": (),
    "transformer-gettext": (),
    "lstm-ptb": (),
    "resnet44-cifar10-mixup": (),
    "wrn28-10-cifar10-mixup": ("wrn28-10-cifar100-mixup",),
    "resnet50-imagenet-mixup": (),
    "resnet50-imagenet-lars": (),
    "lstm-bible": (),
}
LIGHT = ("quickstart", "resnet44-cifar10")
HEAVY = [name for name in STANDS_FOR if name not in LIGHT]
# What a rate follows from; tests/unit has the rates of every recipe.
RATES = ("lr", "lr_scale", "warmup_epochs", "warmup_from")


def without_rates(name):
    """The smoke run of a recipe, but for its name and its rates."""
    usual = {option.name: option.of(Config("usual")) for option in options()}
    config = override(smoke_of(recipe(name)), {rate: usual[rate] for rate in RATES})
    return dataclasses.replace(config, recipe="")


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


def test_each_recipe_is_run_or_has_one_that_stands_for_it():
    found = {}
    for name in RECIPES:
        found.setdefault(without_rates(name), []).append(name)
    assert {first: tuple(others) for first, *others in found.values()} == STANDS_FOR
    assert set(LIGHT) < set(STANDS_FOR)


@pytest.mark.mpi
@pytest.mark.smoke
@pytest.mark.parametrize("name", LIGHT)
def test_a_recipe_learns(smoked, name):
    folder = smoked(*((light, "none") for light in LIGHT), *BASES) / f"{name}-smoke"
    assert_learned(folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["multiplicity"], summary["group_size"], summary["smoke"]) == (2, 2, True)


BASES = tuple(("quickstart", baseline) for baseline in BASELINES[1:])


@pytest.mark.mpi
@pytest.mark.smoke
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
