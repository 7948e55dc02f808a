"""The tree of settings: what goes out comes back, and what cannot work is named."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ba_dist.config import (
    PARTS,
    Config,
    Data,
    Optimizer,
    adapted,
    computed_part,
    differences,
    from_dict,
    layout_of,
    options,
    override,
    plan_steps,
    to_dict,
)
from ba_dist.data.catalog import sentence_pairs
from ba_dist.data.catalog.prepare import INFOS
from ba_dist.data.catalog.text_datasets import TEXTS
from ba_dist.errors import ConfigError, LayoutError
from ba_dist.experiment import hyperparameters
from ba_dist.models import network
from ba_dist.recipes import RECIPES, recipe, summary
from ba_dist.rules.schedules import Scale

OPTIONS = {option.name: option for option in options()}
ORDERED = [option for option in OPTIONS.values() if option.low is not None]
LR = st.tuples(st.tuples(st.just(0.0), st.floats(0, 10)), st.tuples(st.floats(1, 99), st.just(0.5)))

SCALES = st.floats(0, 10) | st.sampled_from(["none", "sqrt", "linear", "batch^0.25", "batch^-1"])


def values(option):
    """Any value that a field allows."""
    low, high = option.low, option.high
    if option.choices:
        strategy = st.sampled_from(option.choices)
    elif option.type is int:
        strategy = st.integers(low, high)
    elif option.type is float:
        strategy = st.floats(low, high, allow_nan=False, allow_infinity=False)
    else:
        kinds = {bool: st.booleans(), str: st.text(), tuple: LR, Scale: SCALES}
        strategy = kinds[option.type]
    return st.none() | strategy if option.optional else strategy


changes = st.fixed_dictionaries({}, optional={o.name: values(o) for o in OPTIONS.values()})


def value_of(config, name):
    return OPTIONS[name].of(config)


@given(st.sampled_from(sorted(RECIPES)), changes)
def test_round_trip_through_json(name, changed):
    config = override(recipe(name), changed)
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@given(st.sampled_from(sorted(RECIPES)), changes)
def test_override_changes_what_it_names_and_nothing_else(name, changed):
    before, after = recipe(name), override(recipe(name), changed)
    for field in OPTIONS:
        expected = changed[field] if field in changed else value_of(before, field)
        assert value_of(after, field) == expected
    assert override(before, {}) == before


def test_flags_are_unique_and_every_field_is_one():
    fields = [f.name for part in PARTS.values() for f in dataclasses.fields(part)]
    flags = [option.flag for option in options()]
    assert len(set(flags)) == len(flags) == len(fields)
    assert {option.name for option in options()} == set(fields)
    assert {"recipe", "baseline", "smoke", *PARTS} == {f.name for f in dataclasses.fields(Config)}
    assert all(option.help and option.help[-1] != "." for option in options())


def test_the_flags_that_scripts_rely_on():
    promised = (
        "--batch-size --multiplicity --group-size --ghost-batch-size --microbatch --epochs --steps"
        " --train-samples --seed --io --precision --data-dir --run-dir --resume --trace"
    )
    assert set(promised.split()) <= {option.flag for option in options()}


@pytest.mark.parametrize("option", ORDERED, ids=lambda o: o.name)
def test_limits_are_named(option):
    number = option.type
    below = [option.low - 1, -(10**30)] if number is int else [option.low - 1e-9, -math.inf]
    above = [] if option.high is None else [option.high + 1, option.high * 2]
    for value in [*below, *above]:
        with pytest.raises(ConfigError) as caught:
            override(Config("r"), {option.name: number(value) if math.isfinite(value) else value})
        assert option.flag in str(caught.value)
        if math.isfinite(value):
            assert f"at least {option.low}" in str(caught.value)
            assert option.high is None or f"at most {option.high}" in str(caught.value)
    for value in (option.low, option.high):
        if value is not None:
            assert value_of(override(Config("r"), {option.name: value}), option.name) == value


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda o: o.name)
def test_wrong_types_are_named(option):
    wrong = [object(), [1], {"a": 1}]
    wrong += [] if option.type is str else ["3"]
    wrong += [] if option.type is bool else [True]
    wrong += [1.5] if option.type in (int, str, bool) else []
    wrong += [math.nan, math.inf] if option.type in (int, float) else []
    wrong += [] if option.optional else [None]
    for value in wrong:
        with pytest.raises(ConfigError) as caught:
            override(Config("r"), {option.name: value})
        assert option.flag in str(caught.value)


@pytest.mark.parametrize("option", [o for o in OPTIONS.values() if o.choices], ids=lambda o: o.name)
def test_wrong_choices_list_the_right_ones(option):
    with pytest.raises(ConfigError) as caught:
        override(Config("r"), {option.name: "other"})
    assert option.flag in str(caught.value) and "'other'" in str(caught.value)
    assert all(choice in str(caught.value) for choice in option.choices)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ConfigError, match=r"batch_sise, colour; valid: batch_size, multi"):
        override(Config("r"), {"colour": 1, "batch_sise": 2, "seed": 3})


@pytest.mark.parametrize("lr", [0.1, "0:0.1", ((1, 0.1),), ()])
def test_a_recipe_with_a_bad_regime_says_so(lr):
    with pytest.raises(ConfigError, match="--lr"):
        Config("r", optimizer=Optimizer(lr=lr))


@pytest.mark.parametrize("part", ["recipe", *PARTS])
def test_a_tree_without_a_part_is_refused(part):
    tree = to_dict(Config("r"))
    del tree[part]
    with pytest.raises(ConfigError, match=part):
        from_dict(tree)


@pytest.mark.parametrize("tree", [{}, {"recipe": "r", "batch": 3}])
def test_what_is_no_tree_is_refused(tree):
    with pytest.raises(ConfigError, match="not a whole configuration"):
        from_dict(tree)


def test_a_tree_of_an_older_version_gets_defaults_and_of_a_newer_is_refused():
    tree = to_dict(Config("r", data=Data(image_size=64)))
    del tree["data"]["image_size"]
    assert from_dict(tree).data.image_size == Data().image_size
    tree["data"]["colour"] = "red"
    with pytest.raises(ConfigError, match=r"unknown option\(s\) colour"):
        from_dict(tree)


# --- what is computed, and where ----------------------------------------------------------------


def test_the_layout_asked_for():
    config = override(
        Config("r"),
        {"batch_size": 96, "multiplicity": 6, "group_size": 3, "ghost_batch_size": 16}
        | {"microbatch": 32},
    )
    layout = layout_of(config, 6)
    found = dataclasses.asdict(layout)
    expected = {"world_size": 6, "multiplicity": 6, "batch_size": 96, "group_size": 3}
    assert found == {**expected, "ghost_batch_size": 16, "microbatch": 32}
    with pytest.raises(LayoutError):
        layout_of(config, 4)


# Of `init_from` the digest of what is read counts.
WHERE = (
    "group_size microbatch recompute bucket_mb io exchange io_threads prefetch data_dir val_samples"
    " context on_corrupt corrupt_budget epochs steps run_dir resume trace logger log_every"
    " eval_every checkpoint_every keep_checkpoints checkpoint_minutes on_nonfinite nonfinite_budget"
    " stall_warning stall_timeout keep_best init_from repeatable"
)


@given(changes)
def test_only_what_is_computed_keeps_a_run_from_going_on(changed):
    """The placement and the length of a run may change when it is resumed; nothing else may."""
    before = Config("r")
    after = override(before, changed)
    layout = layout_of(before, 1)
    lines = differences(computed_part(before, layout), computed_part(after, layout))
    names = {line.split(" was ")[0] for line in lines}
    free = {*WHERE.split(), "ghost_batch_size"}
    if not (isinstance(after.optimizer.lr_scale, str) or after.optimizer.regime_adaptation):
        free.add("lr_batch_size")
    assert names == {n for n in OPTIONS if value_of(before, n) != value_of(after, n)} - free


# --- the regime and the batch -------------------------------------------------------------------

NEW = {"batch_size": 640, "weight_decay_epochs": 7.5, "drop_path_epochs": 3.0, "lr_scale": "sqrt"}


def test_a_recipe_knows_the_batch_of_its_regime():
    assert recipe("resnet44-cifar10").optimizer.lr_batch_size == 64
    config = override(recipe("resnet44-cifar10"), {"batch_size": 640})
    for scale, factor in (("none", 1), ("linear", 10), ("batch^0.25", 10**0.25), (3.0, 3)):
        rate = hyperparameters(override(config, {"lr_scale": scale}), 78)
        assert rate(0)["learning_rate"] == pytest.approx(0.1 * factor)
    own = override(Config("r"), {"batch_size": 640, "lr_scale": "linear"})
    assert hyperparameters(own, 1)(0)["learning_rate"] == 0.1


def test_a_run_of_a_version_without_names_of_scales_goes_on():
    tree = to_dict(Config("r", optimizer=Optimizer(lr_scale=2.0)))
    for name in ("lr_batch_size", "regime_adaptation", "warmup_steps", "lr_power"):
        del tree["optimizer"][name]
    old, now = from_dict(json.loads(json.dumps(tree))), recipe("quickstart")
    assert old.optimizer.lr_scale == 2.0
    assert not differences(tree, computed_part(old, layout_of(old, 1)))
    assert "lr_batch_size" not in computed_part(now, layout_of(now, 1))["optimizer"]


@pytest.mark.parametrize("warmup", [{"warmup_epochs": 1.5}, {"warmup_steps": 100}])
def test_an_adapted_regime_has_the_updates_and_rates_of_the_small_batch(warmup):
    """B = 640 in place of 64: each of 100,000 updates has its old rate, times the root of ten."""
    small = override(recipe("resnet44-cifar10"), {**NEW, **warmup, "batch_size": 64})
    small = override(small, {"lr": ((0, 0.1), (81, 0.01), (90, 0.001, "cosine"), (100, 0.0))})
    large = adapted(override(small, {"batch_size": 640, "regime_adaptation": True}))
    assert large.run.epochs == 1000 and not large.optimizer.regime_adaptation
    plans = [plan_steps(config, 64_000, 1) for config in (small, large)]
    assert plans[0].total_steps == plans[1].total_steps == 100_000
    before, after = (
        hyperparameters(override(c, {"drop_path": 0.2}), p.steps_per_epoch)
        for c, p in zip((small, large), plans, strict=True)
    )
    for step in [*range(0, 100_000, 501), 7499, 7500, 80_999, 81_000]:
        old, new = before(step), after(step)
        old["learning_rate"] *= 10**0.5
        assert new == pytest.approx(old, rel=1e-9, abs=1e-12)


@given(st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 300))
def test_an_adapted_run_is_less_than_an_epoch_longer(batch_size, reference, epochs):
    config = Config("r", optimizer=Optimizer(lr_batch_size=reference, regime_adaptation=True))
    config = adapted(override(config, {"batch_size": batch_size, "epochs": epochs}))
    beyond = config.run.epochs * reference - epochs * batch_size
    assert 0 <= beyond < reference
    assert adapted(config) == config


# --- recipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_whole(name):
    config = recipe(name)
    assert config.recipe == name and len(summary(name)) > 20
    assert config.data.dataset in {*INFOS, *sentence_pairs.NAMES, *TEXTS, "synthetic", "imagenet"}
    for ranks in (1, 2, 4):
        layout = layout_of(config, ranks)
        kept = layout.notice() is None or not network(config.model.model).normalised
        assert kept, "the recipe's own ghost batch size is not kept"
    assert recipe(name) == config


def test_unknown_recipe():
    with pytest.raises(ConfigError) as caught:
        recipe("resnet45")
    assert all(name in str(caught.value) for name in ["'resnet45'", *RECIPES])
