"""The recipes of the paper's tables: what they say can be laid out, planned and built."""

import dataclasses
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ba_dist import experiment, models
from ba_dist.config import layout_of, override, plan_steps
from ba_dist.data.catalog.prepare import INFOS
from ba_dist.data.catalog.text_datasets import TEXTS
from ba_dist.data.sources import ImageInfo
from ba_dist.data.sources.text import TextInfo
from ba_dist.errors import LayoutError
from ba_dist.recipes import RECIPES, recipe, summary
from ba_dist.rules import schedules

from .test_benchmarks import ROOT

PTB = TextInfo("ptb", 10_000, "", 0, 70, 140)
# Of texts, in spans of --bptt tokens.
SAMPLES = {
    "ptb": 929_588 // 70,
    "bible-kjv": 25_676,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "imagenet": 1_281_167,
    "fashion_mnist": 60_000,
}
IMAGENET = ImageInfo("imagenet", (0, 0, 3), 1000, (0.5,) * 3, (0.5,) * 3)
# Without a row in the paper.
OURS = {"quickstart", "lstm-bible"}
# Recipe, multiplicity, and the paper's accuracies (perplexities of lstm-ptb): the baseline of as
# many steps, then M copies.
TABLE_2 = """
resnet44-cifar10         40  93.70  95.43
vgg16-cifar10            32  93.82  95.32
wrn28-10-cifar10          6  96.60  97.15
darts-cifar10             8  97.65  97.85
amoebanet-cifar10         8  98.16  98.24
resnet44-cifar100        40  72.97  74.13
vgg16-cifar100           32  73.03  75.50
wrn28-10-cifar100        10  79.85  83.45
densenet100-12-cifar100   4  77.73  78.80
alexnet-imagenet          8  58.25  62.31
mobilenet-imagenet        4  70.60  71.40
resnet50-imagenet         4  76.30  76.86
lstm-ptb                 10  58.8   58.6
"""
TABLE_3 = """
resnet44-cifar10-mixup   10  94.60  95.55
wrn28-10-cifar10-mixup   10  97.30  97.80
wrn28-10-cifar100-mixup  10  82.5   84.3
resnet50-imagenet-mixup   4  76.70  77.04
"""
TABLE_4 = """
resnet44-cifar10-m10     10  93.41  95.03
darts-cifar10-m10        10  97.63  97.85
amoebanet-cifar10-m10    10  98.16  98.24
wrn28-10-cifar100        10  79.85  83.45
resnet50-imagenet-m10    10  76.30  77.85
"""
ROWS = [
    (int(table), *line.split())
    for table, text in (("2", TABLE_2), ("3", TABLE_3), ("4", TABLE_4))
    for line in text.strip().splitlines()
]


@pytest.mark.parametrize(("table", "name", "multiplicity", "baseline", "augmented"), ROWS)
def test_each_row_of_the_tables_has_a_recipe(table, name, multiplicity, baseline, augmented):
    config = recipe(name)
    assert config.batch.multiplicity == int(multiplicity)
    assert config.augment.mixup == (0.2 if table == 3 else 0)
    assert re.search(rf"\btables?\b.*\b{table}\b", summary(name))
    assert f"M = {multiplicity}," in summary(name)
    assert f"{config.run.epochs} epochs" in summary(name)
    page = (ROOT / "docs" / "recipes.md").read_text()
    row = rf"^\| `{name}` \|.*\| {multiplicity} \|.*\| {baseline} \| {augmented} \|"
    assert re.search(row, page, re.MULTILINE), f"docs/recipes.md lacks {row}"


def test_every_recipe_of_the_paper_is_a_row():
    assert {row[1] for row in ROWS} == set(RECIPES) - OURS


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_trained_as_it_is(name):
    """All that is checked before the first step, but for building the network."""
    config = recipe(name)
    experiment.check(config)
    assert config.model.model in models.NETWORKS
    a_text = config.data.dataset in TEXTS
    info = PTB if a_text else INFOS.get(config.data.dataset, IMAGENET)
    task = experiment.task_of(config, info)
    if not a_text:
        assert min(task.facts["image_shape"][:2]) >= models.network(config.model.model).smallest
    samples = config.data.train_samples or SAMPLES[config.data.dataset]
    plan = plan_steps(config, samples, 1)
    assert plan.total_steps == config.run.epochs * (samples // config.batch.batch_size)
    assert layout_of(config, config.batch.multiplicity).copies_per_rank == 1
    # Every point of the regime is reached; ResNet-44 is stopped early, as in the paper.
    if name != "quickstart" and not (name.startswith("resnet44") and config.run.epochs == 100):
        assert schedules.notice(config.optimizer.lr, config.run.epochs) is None


@given(st.sampled_from(sorted(RECIPES)), st.integers(1, 64))
def test_ranks_change_nothing_but_the_layout(name, ranks):
    """On any number of ranks: the recipe's own instances, or a message that says what would fit."""
    config = recipe(name)
    try:
        layout = layout_of(config, ranks)
    except LayoutError as error:
        assert re.search(r"that work\b.*: \d", str(error))
        return
    rows = sorted(row for rank in range(ranks) for row in layout.rows(rank))
    assert rows == list(range(config.batch.batch_size * config.batch.multiplicity))
    assert layout.group_size == math.gcd(ranks, config.batch.multiplicity)


def test_decay_ends_and_paths_are_dropped_where_the_regime_says_so():
    alexnet = experiment.hyperparameters(recipe("alexnet-imagenet"), 100)
    assert [alexnet(step)["weight_decay"] for step in (0, 1499, 1500, 2999)] == [5e-4, 5e-4, 0, 0]
    assert [alexnet(step)["learning_rate"] for step in (0, 1499, 1500)] == [0.01, 0.005, 0.001]
    darts = experiment.hyperparameters(recipe("darts-cifar10"), 100)
    found = [darts(step) for step in (0, 30_000, 60_000)]
    assert [hyper["drop_path"] for hyper in found] == pytest.approx([0, 0.1, 0.2])
    assert [hyper["learning_rate"] for hyper in found] == pytest.approx([0.025, 0.0125, 0])
    assert {hyper["weight_decay"] for hyper in found} == {3e-4}


def test_a_baseline_is_one_flag_away():
    for name in set(RECIPES) - OURS:
        baseline = override(recipe(name), {"multiplicity": 1})
        batch = dataclasses.replace(recipe(name).batch, multiplicity=1)
        assert baseline == dataclasses.replace(recipe(name), batch=batch)
