"""What batch augmentation is compared with: what is kept, and what is stretched."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ba_dist import experiment
from ba_dist.config import BASELINES, computed_part, layout_of, options, override, plan_steps
from ba_dist.config.epochs import COUNTED
from ba_dist.data.catalog.made import MADE
from ba_dist.errors import ConfigError
from ba_dist.models import NETWORKS
from ba_dist.recipes import RECIPES, baseline_of, recipe, smoke_of
from ba_dist.recipes.smoke import SMALL_DATA, SMALL_NETWORKS

DERIVED = BASELINES[1:]
names = st.sampled_from(sorted(RECIPES))
copies = st.sampled_from([1, 2, 4, 5, 8, 10, 32, 40])


def experiment_of(name, multiplicity, **changes):
    return override(recipe(name), {"multiplicity": multiplicity, **changes})


def flat(config):
    return {option.name: option.of(config) for option in options()}


def changed(before, after):
    """The names of what differs, among all settings."""
    old, new = flat(before), flat(after)
    return {name for name in old if old[name] != new[name]}


# --- which numbers --------------------------------------------------------------------------------


@given(names, copies)
def test_fixed_steps_is_one_copy_and_nothing_else(name, multiplicity):
    config = experiment_of(name, multiplicity)
    found = baseline_of(config, "fixed-steps")
    assert replace(found, baseline="none") == override(config, {"multiplicity": 1})


@given(names, copies)
def test_fixed_samples_sees_as_many_instances_in_as_many_updates(name, multiplicity):
    config = experiment_of(name, multiplicity)
    found = baseline_of(config, "fixed-samples")
    assert found.batch.batch_size == config.batch.batch_size * multiplicity
    assert (found.batch.multiplicity, found.run.epochs) == (1, config.run.epochs * multiplicity)
    assert changed(config, found) <= {
        *("batch_size", "multiplicity", "epochs", "eval_every", "lr"),
        *COUNTED,
    }
    samples = 3 * found.batch.batch_size  # whole batches: then the number of updates is the same
    assert same_updates(config, found, samples)


def same_updates(config, found, samples):
    return plan_steps(config, samples, 1).total_steps == plan_steps(found, samples, 1).total_steps


@given(names, copies)
def test_fixed_compute_has_as_many_instances_a_step_as_one_copy(name, multiplicity):
    config = experiment_of(name, multiplicity)
    size, ghost = config.batch.batch_size, config.batch.ghost_batch_size
    samples = size // multiplicity
    fits = size % multiplicity == 0 and (samples <= ghost or samples % ghost == 0)
    whole = config.run.epochs % multiplicity == 0 or config.run.steps is not None
    if not (fits and whole):
        with pytest.raises(ConfigError, match="fixed-compute") as caught:
            baseline_of(config, "fixed-compute")
        assert f"/ {multiplicity} " in str(caught.value)
        return
    found = baseline_of(config, "fixed-compute")
    assert (found.batch.batch_size, found.batch.multiplicity) == (samples, multiplicity)
    assert found.batch.batch_size * found.batch.multiplicity == size
    assert same_updates(config, found, 5 * size)
    # Two copies of one sample are never normalised together, so there are fewer in a ghost batch.
    assert layout_of(found, 1).ghost_batch == min(ghost, samples)


@given(names, copies, st.integers(1, 4000))
def test_updates_differ_by_the_batches_that_are_dropped_alone(name, multiplicity, extra):
    config = experiment_of(name, multiplicity)
    found = baseline_of(config, "fixed-samples")
    samples = found.batch.batch_size + extra
    if config.run.steps is not None:
        assert same_updates(config, found, samples)
        return
    exact = config.run.epochs * samples / config.batch.batch_size
    for run in (config, found):
        steps = plan_steps(run, samples, 1).total_steps
        assert exact - run.run.epochs < steps <= exact


# --- the regime -----------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", DERIVED)
@pytest.mark.parametrize("name", ["darts-cifar10", "alexnet-imagenet", "resnet44-cifar10"])
def test_every_update_has_the_hyperparameters_that_it_has_in_the_experiment(name, baseline):
    """Rates, warm-up, drop-path and decay, update by update: the reference is the experiment."""
    config = experiment_of(name, 2, warmup_epochs=1.5, warmup_from=0.001, eval_every=2)
    found = baseline_of(config, baseline)
    ratio = {"fixed-steps": 1, "fixed-samples": 2, "fixed-compute": 0.5}[baseline]
    per_epoch = 60  # of the experiment
    expected = experiment.hyperparameters(config, per_epoch)
    given = experiment.hyperparameters(found, round(per_epoch / ratio))
    for step in range(0, config.run.epochs * per_epoch, 7):
        assert given(step) == pytest.approx(expected(step), rel=1e-12), step
    assert found.run.eval_every == 2 * ratio


# Whose name or help speaks of epochs, and which are not in COUNTED.
OF_EPOCHS = {
    "epochs": "stretched itself",
    "lr": "its points are stretched",
    "eval_every": "stretched to a whole number",
    "steps": "counts updates, in place of epochs",
    "warmup_steps": "counts updates, in place of epochs",
    "checkpoint_every": "counts updates; no epochs are its default",
    "regime_adaptation": "stretches epochs, which baselines have done when they are derived",
}


def test_nothing_else_is_counted_in_epochs():
    """A field that comes later and counts epochs has to be entered in COUNTED."""
    of_epochs = {o.name for o in options() if "epoch" in f"{o.name} {o.help}".lower()}
    assert of_epochs == {*COUNTED, *OF_EPOCHS}


@pytest.mark.parametrize("baseline", DERIVED)
def test_what_counts_updates_stays(baseline):
    """Of a run that ends after so many steps: its warm-up, its rates, its end."""
    config = recipe("transformer-wmt16")
    found = baseline_of(config, baseline)
    assert (found.run.steps, found.optimizer.warmup_steps) == (100_000, 4000)
    expected, given = (experiment.hyperparameters(c, per) for c, per in ((config, 60), (found, 15)))
    for step in (0, 1, 399, 4000, 4001, 99_999):
        assert given(step) == pytest.approx(expected(step), rel=1e-12)
    # Other rules count epochs of it, which are as many updates as before.
    decayed = baseline_of(override(config, {"weight_decay_epochs": 8.0}), baseline)
    ratio = decayed.batch.batch_size / config.batch.batch_size
    assert decayed.optimizer.weight_decay_epochs == 8 * ratio


def test_an_adapted_regime_is_stretched_once():
    config = override(recipe("lstm-ptb"), {"batch_size": 40, "regime_adaptation": True})
    found = baseline_of(config, "fixed-samples")
    assert (found.run.epochs, found.batch.batch_size) == (500 * 2 * 10, 400)
    assert not found.optimizer.regime_adaptation


# --- names and mistakes ---------------------------------------------------------------------------


@given(names, st.sampled_from(DERIVED))
def test_a_baseline_says_so_and_is_derived_once(name, baseline):
    found = baseline_of(experiment_of(name, 1), baseline)
    assert found.title == f"{name}-{baseline}" and found.recipe == name
    with pytest.raises(ConfigError, match=f"the {baseline} baseline of {name} already"):
        baseline_of(found, "fixed-steps")
    assert baseline_of(recipe(name), "none") == recipe(name)


def test_with_one_copy_all_are_the_same_run():
    layout = layout_of(experiment_of("resnet44-cifar10", 1), 2)
    runs = [baseline_of(experiment_of("resnet44-cifar10", 1), name) for name in BASELINES]
    assert all(computed_part(run, layout) == computed_part(runs[0], layout) for run in runs)
    assert len({run.run.epochs for run in runs}) == 1


def test_what_is_given_wins_also_over_what_would_be_no_whole_number():
    config = experiment_of("resnet44-cifar10", 8)
    with pytest.raises(ConfigError, match=r"100 / 8 = 12\.5 .*--epochs 12 "):
        baseline_of(config, "fixed-compute")
    found = baseline_of(config, "fixed-compute", {"epochs": 13, "seed": 5})
    assert (found.run.epochs, found.run.seed, found.batch.batch_size) == (13, 5, 8)
    with pytest.raises(ConfigError, match="choose from none, fixed-steps"):
        baseline_of(config, "fixed")


@given(st.integers(1, 512), st.integers(1, 64), st.sampled_from([1, 8, 32]))
def test_the_multiplicities_that_are_advised_work(size, multiplicity, ghost):
    assume(size % ghost == 0 or size <= ghost)
    changes = {"batch_size": size, "ghost_batch_size": ghost, "epochs": math.lcm(*range(1, 17))}
    config = experiment_of("resnet44-cifar10", multiplicity, **changes)
    try:
        found = baseline_of(config, "fixed-compute", {"epochs": 1})
    except ConfigError as error:
        works = [int(m) for m in str(error).rpartition(": ")[2].split(", ")]
        assert multiplicity not in works
        for advised in works:
            other = override(config, {"multiplicity": advised})
            layout_of(baseline_of(other, "fixed-compute", {"epochs": 1}), 1)
        return
    layout_of(found, 1)


# --- smoke ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("name", RECIPES)
def test_a_smoke_run_is_the_same_experiment_on_a_few_samples(name, baseline):
    whole = recipe(name)
    small = smoke_of(whole)
    assert small.title == f"{name}-smoke"
    assert small.augment == whole.augment
    network = whole.model.model
    assert small.model.model == SMALL_NETWORKS.get(network, network) in NETWORKS
    assert small.batch.multiplicity == min(2, whole.batch.multiplicity)
    run = baseline_of(small, baseline)
    samples = run.data.train_samples
    plan = plan_steps(run, samples, 2)
    assert plan.total_steps == 8 and samples <= 8
    layout_of(run, 2)
    # What is counted in epochs is at the same share of the run.
    for field in COUNTED:
        before, after = flat(whole)[field], flat(run)[field]
        assert after == (before and pytest.approx(before * run.run.epochs / whole.run.epochs))
    # It warms up, but not in all of its steps, and its rates are rates.
    rates = [
        experiment.hyperparameters(run, plan.steps_per_epoch)(i)["learning_rate"] for i in range(8)
    ]
    assert all(rate > 0 for rate in rates[1:])


@pytest.mark.parametrize("name", RECIPES)
def test_a_smoke_run_needs_no_file(name):
    small = smoke_of(recipe(name))
    assert small.data.dataset == SMALL_DATA[recipe(name).data.dataset]["dataset"] in MADE


def test_what_follows_from_the_batch_does_so_in_a_smoke_run_too():
    """Its rates are for its own four samples: M times as many are M times the rate."""
    whole = override(recipe("resnet50-imagenet-large"), {"warmup_epochs": 0.0})
    small = override(smoke_of(whole), {"lr_scale": "linear"})
    assert small.optimizer.lr_batch_size == small.batch.batch_size == 4
    ratio = {"fixed-steps": 1, "fixed-samples": 2, "fixed-compute": 0.5}
    first = experiment.hyperparameters(small, 2)(0)["learning_rate"]
    for baseline, factor in ratio.items():
        found = experiment.hyperparameters(baseline_of(small, baseline), 2)(0)["learning_rate"]
        assert found == pytest.approx(factor * first)
