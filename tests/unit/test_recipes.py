"""The recipes of the paper's tables and figures: they can be laid out, planned and built."""

import math
import re
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ba_dist import experiment, models
from ba_dist.config import layout_of, override, plan_steps
from ba_dist.data.catalog import sentence_pairs
from ba_dist.data.catalog.prepare import INFOS
from ba_dist.data.catalog.text_datasets import TEXTS
from ba_dist.data.sources import ImageInfo, PairsInfo
from ba_dist.data.sources.text import TextInfo
from ba_dist.errors import ConfigError, LayoutError
from ba_dist.models import tags
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
from ba_dist.recipes import RECIPES, recipe, summary
from ba_dist.recipes.about import MULTIPLY_ADDS, about, hours, nodes
from ba_dist.recipes.published import PUBLISHED, published
from ba_dist.rules import schedules

from .test_benchmarks import ROOT

# Of texts, in spans of --bptt tokens; of sentence pairs as many rows as there might be.
SAMPLES = {
    "ptb": 929_588 // 70,
    "bible-kjv": 25_676,
    "wmt16-en-de": 600_000,
    "gettext-en-de": 8_272,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "imagenet": 1_281_167,
    "fashion_mnist": 60_000,
}
IMAGENET = ImageInfo("imagenet", (0, 0, 3), 1000, (0.5,) * 3, (0.5,) * 3)
# Without a number in the paper.
OURS = {"quickstart", "lstm-bible", "transformer-gettext", "resnet50-imagenet-lars"}
# From the paper, read once more: what is reported for one copy in as many steps, for one copy in
# as many instances (table 2), and for M copies.
PAPER = """
table 2   resnet44-cifar10           40  93.70  93.80  95.43
table 2   vgg16-cifar10              32  93.82  94.49  95.32
table 2   wrn28-10-cifar10            6  96.60  96.60  97.15
table 2   darts-cifar10               8  97.65  97.63  97.85
table 2   amoebanet-cifar10           8  98.16  98.10  98.24
table 2   resnet44-cifar100          40  72.97  70.30  74.13
table 2   vgg16-cifar100             32  73.03  67.20  75.50
table 2   wrn28-10-cifar100          10  79.85  80.12  83.45
table 2   densenet100-12-cifar100     4  77.73  75.35  78.80
table 2   alexnet-imagenet            8  58.25  57.60  62.31
table 2   mobilenet-imagenet          4  70.60  69.50  71.40
table 2   resnet50-imagenet           4  76.30  75.70  76.86
table 2   lstm-ptb                   10  58.80  58.80  58.60
table 2   transformer-wmt16           4  26.88  27.13  27.49
table 3   resnet44-cifar10-mixup     10  94.60  -      95.55
table 3   wrn28-10-cifar10-mixup     10  97.30  -      97.80
table 3   wrn28-10-cifar100-mixup    10  82.50  -      84.30
table 3   resnet50-imagenet-mixup     4  76.70  -      77.04
table 4   resnet44-cifar10-m10       10  93.41  -      95.03
table 4   darts-cifar10-m10          10  97.63  -      97.85
table 4   amoebanet-cifar10-m10      10  98.16  -      98.24
table 4   wrn28-10-cifar100          10  79.85  -      83.45
table 4   resnet50-imagenet-m10      10  76.30  -      77.85
figure 2  resnet44-cifar10-23epochs  32  93.07  -      94.15
figure 4  resnet50-imagenet-40epochs  4  76.30  -      76.86
figure 4  resnet50-imagenet-23epochs  4  -      -      75.70
figure 5  resnet50-imagenet-large     4  75.86  -      76.51
"""
# Recipe, B, M, epochs, rates at epochs.
REGIMES = """
resnet44-cifar10-23epochs    64 32 23 0:0.2,14.9:0.2,15:0.02,20:0.002,22:0.0002
resnet50-imagenet-40epochs  256  4 40 0:0.1,29.9:0.1,30:0.01,35:0.001
resnet50-imagenet-23epochs  256  4 23 0:0.1,14.9:0.1,15:0.01,20:0.001,22:0.0001
resnet50-imagenet-large    8192  4 90 0:0.1,2.5:1.65,5:3.2,30:0.32,60:0.032,80:0.0032
resnet50-imagenet-lars     8192  4 90 0:0,2.5:5,5:10,47.5:2.5,90:0
"""
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("recipes", "reproduce")}
rows_of_the_paper = pytest.mark.parametrize(
    "row", PUBLISHED, ids=lambda row: f"{row.where}-{row.recipe}"
)


def kind_of(config):
    """What kind of samples it learns from."""
    if config.data.dataset in TEXTS:
        return "text"
    return "pairs" if config.data.dataset in sentence_pairs.NAMES else "images"


OF_IMAGES = {name for name in RECIPES if kind_of(recipe(name)) == "images"}


def two_digits(number):
    return "-" if number is None else f"{number:.2f}"


def test_what_is_published_is_what_the_paper_says():
    shown = [
        [
            *(row.kind, str(row.number), row.recipe, str(row.multiplicity)),
            *map(two_digits, (row.baseline, row.fixed_samples, row.augmented)),
        ]
        for row in PUBLISHED
    ]
    assert shown == [line.split() for line in PAPER.strip().splitlines()]
    table_4 = [row.tta for row in PUBLISHED if row.where == "table 4"]
    assert table_4 == [
        *((94.33, 96.00), (97.73, 98.13), (98.15, 98.42), (80.29, 84.88), (77.10, 77.90)),
    ]
    assert all((row.tta is None) == (row.where != "table 4") for row in PUBLISHED)
    measures = {"lstm-ptb": "perplexity", "transformer-wmt16": "BLEU"}
    assert all(row.measure == measures.get(row.recipe, "top-1 %") for row in PUBLISHED)
    longer = {row.recipe: row.baseline_epochs for row in PUBLISHED if row.baseline_epochs}
    assert longer == {"resnet44-cifar10-23epochs": 100, "resnet50-imagenet-40epochs": 90}


@rows_of_the_paper
def test_each_row_of_the_paper_has_a_recipe(row):
    config, says = recipe(row.recipe), summary(row.recipe)
    assert config.batch.multiplicity == row.multiplicity
    assert config.augment.mixup == (0.2 if row.where == "table 3" else 0)
    assert re.search(rf"\b{row.kind}s?\b.*\b{row.number}\b", says)
    steps = config.run.steps
    length = f"{config.run.epochs} epochs" if steps is None else f"{steps:,} steps"
    assert f"M = {row.multiplicity}," in says and length in says


@rows_of_the_paper
def test_docs_have_each_row_of_the_paper(row):
    config = recipe(row.recipe)
    a_figure = row.kind == "figure"
    base = "" if row.baseline is None else f"{row.baseline:.2f}"
    if row.baseline_epochs:
        base += f" ({row.baseline_epochs} epochs)"
    numbers = [row.fixed_samples, row.augmented, *(row.tta or ())]
    cells = [
        *([str(config.batch.batch_size)] if a_figure else []),
        *(str(row.multiplicity), f"{config.run.steps or config.run.epochs:,}"),
        *([".*"] if a_figure else []),
        *(re.escape(base), *(f"{number:.2f}" for number in numbers if number is not None)),
    ]
    line = r" *\| *".join([rf"^\| `{row.recipe}`", re.escape(row.network), *cells]) + r" \|$"
    assert re.search(line, PAGES["recipes"], re.MULTILINE), f"docs/recipes.md lacks {line}"


def test_every_recipe_is_a_row_of_the_paper_or_ours():
    rows = {row.recipe for row in PUBLISHED}
    assert rows | OURS == set(RECIPES) and not rows & OURS
    assert published("quickstart") == [] and len(published("wrn28-10-cifar100")) == 2
    assert all(f"`{name}`" in PAGES["recipes"] for name in RECIPES if name != "quickstart")


# --- what they cost -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet44", "vgg16", "alexnet", "mobilenet", "resnet50"])
def test_multiply_adds_are_those_of_the_network(name):
    """Of the heavier ones the same walk gave the others."""
    side, classes = (32, 10) if name in ("resnet44", "vgg16") else (224, 1000)
    norm = partial(GhostBatchNormalization, ghost_batch_size=32, momentum=0.9)
    model = models.build(name, norm, image_shape=(side, side, 3), classes=classes)
    total = sum(multiply_adds(layer) for layer in tags.layers(model))
    assert MULTIPLY_ADDS[name] == pytest.approx(total / 1e9, abs=6e-4)


def multiply_adds(layer):
    """Each value that a convolution gives takes as many as its kernel has numbers for it."""
    import keras

    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return math.prod(layer.output.shape[1:]) * math.prod(layer.kernel_size)
    if isinstance(layer, keras.layers.Conv2D):
        return math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
    return math.prod(layer.kernel.shape) if isinstance(layer, keras.layers.Dense) else 0


def test_nodes_and_hours_are_computed_from_table_5():
    config = recipe("resnet50-imagenet")
    assert nodes(config) == 16  # section 4.5: 64 images a node, M = 4 on 16
    assert nodes(recipe("resnet50-imagenet-m10")) == 40
    # 5004 steps an epoch of 64 / 234.4 seconds, 90 epochs.
    assert hours(config) == pytest.approx(90 * 5004 * 64 / 234.4 / 3600)
    assert hours(recipe("quickstart")) is None
    for name in OF_IMAGES - {"quickstart"}:
        whole = hours(recipe(name))
        assert f"at least {whole:.2g} hours on {nodes(recipe(name))} nodes" in "\n".join(
            about(name, recipe(name))
        )


@pytest.mark.parametrize("name", sorted(set(RECIPES) - OF_IMAGES))
def test_of_language_no_hours_are_told(name):
    """Multiply-adds of a text depend on its lengths, and table 5 is of images."""
    config = recipe(name)
    assert hours(config) is None
    assert not any("hours" in line for line in about(name, config))


# --- docs/reproduce.md ----------------------------------------------------------------------------

COMMANDS = re.findall(r"`ba-dist (sweep [^`]+)`", PAGES["reproduce"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_says_runs_that_can_be_started(ba_dist, command):
    """As it stands, and with --smoke; the recipes' smoke runs are in tests/parallel."""
    for more in ((), ("--smoke",)):
        status, out, err = ba_dist(*command.split(), *more, "--dry-run")
        assert (status, err) == (0, ""), err
        assert all(" train " in line for line in out.splitlines()) and out


def test_the_page_has_a_command_for_every_row():
    for row in PUBLISHED:
        config = recipe(row.recipe)
        cost = hours(config)
        shown = "" if cost is None else f"{cost:.2g}"
        line = rf"^\| `{row.recipe}` \| {nodes(config)} \| {shown} *\| `ba-dist sweep {row.recipe} "
        found = re.findall(rf"{line}.*-n {nodes(config)}\b.*\|$", PAGES["reproduce"], re.MULTILINE)
        assert found, f"docs/reproduce.md lacks {line}"
        if row.kind == "table":
            compared = "fixed-steps,none" if row.fixed_samples is None else "fixed-steps,fixed-"
            assert any(f"--baseline {compared}" in command for command in found), found


# --- what they can be trained with ----------------------------------------------------------------


@pytest.mark.parametrize("line", REGIMES.strip().splitlines(), ids=lambda line: line.split()[0])
def test_regimes_of_the_figures(line):
    name, batch, copies, epochs, rates = line.split()
    config = recipe(name)
    assert [config.batch.batch_size, config.batch.multiplicity, config.run.epochs] == [
        *map(int, (batch, copies, epochs))
    ]
    rate = experiment.hyperparameters(config, 100)
    for epoch, expected in (map(float, point.split(":")) for point in rates.split(",")):
        assert rate(round(100 * epoch))["learning_rate"] == pytest.approx(expected)


def info_of(config):
    """Facts of its dataset, as far as they are known without it."""
    name = config.data.dataset
    if kind_of(config) == "text":
        return TextInfo(name, 10_000, "", 0, config.data.bptt, config.data.context)
    if kind_of(config) == "pairs":
        return PairsInfo(name, config.data.row_tokens, 8000, "0" * 64)
    return INFOS.get(name, IMAGENET)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
def test_gradients_of_fp64_are_not_rounded_on_their_way(kind):
    changes = {"precision": "fp64", "allreduce_dtype": kind}
    with pytest.raises(ConfigError, match=f"--allreduce-dtype {kind} .* --precision fp64"):
        experiment.check(override(recipe("quickstart"), changes))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_can_be_trained_as_it_is(name):
    """All that is checked before the first step, but for building the network."""
    config = recipe(name)
    experiment.check(config)
    assert config.model.model in models.NETWORKS
    task = experiment.task_of(config, info_of(config))
    if name in OF_IMAGES:
        assert min(task.facts["image_shape"][:2]) >= models.network(config.model.model).smallest
    samples = config.data.train_samples or SAMPLES[config.data.dataset]
    plan = plan_steps(config, samples, 1)
    epochs = config.run.epochs * (samples // config.batch.batch_size)
    assert plan.total_steps == (config.run.steps or epochs)
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


def test_translation_is_as_the_paper_has_it():
    """Table 2 and section 4.4: 4096 tokens a batch, 100,000 steps, label smoothing, M = 4."""
    config = recipe("transformer-wmt16")
    assert config.batch.multiplicity == 4 and config.run.steps == 100_000
    assert config.batch.batch_size * config.data.row_tokens == 4096
    rule = config.optimizer
    assert (rule.beta1, rule.beta2, rule.epsilon) == (0.9, 0.98, 1e-9)
    assert (rule.label_smoothing, rule.weight_decay, rule.ema) == (0.1, 0.0, 0.0)


@pytest.mark.parametrize("name", ["transformer-gettext", "transformer-wmt16"])
def test_what_translation_has_and_what_it_refuses(name):
    config = recipe(name)
    info = info_of(config)
    task = experiment.task_of(config, info)
    assert task.facts == {"vocabulary": 8000, "row_tokens": config.data.row_tokens}
    assert task.smoothing == 0.1 and task.unit == "tokens"
    flipped = override(config, {"flip": True, "cutout": 4})
    with pytest.raises(ConfigError, match="--flip, --cutout: sentences have no augmentation"):
        experiment.task_of(flipped, info)
    with pytest.raises(ConfigError, match="resnet8 learns classification, which .* cannot be used"):
        experiment.task_of(override(config, {"model": "resnet8"}), info)
