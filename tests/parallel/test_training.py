"""Where a run executes does not change what it computes; a stopped run goes on as if it had not."""

import json
from collections import Counter

import numpy as np
import pytest

from ba_dist.analysis.audit import audit
from ba_dist.run import checkpoint
from tests.parallel.conftest import RESUMED, SAME
from tests.parallel.jobs import Job
from tests.parallel.ranks import WORLDS, program, warm


def weights(run):
    arrays = checkpoint.newest_good(checkpoint.folder_of(run)).arrays
    return {k.removeprefix("model/"): v for k, v in arrays.items() if k.startswith("model/")}


def assert_close(found, expected, tolerance):
    """Equal within a relative tolerance, measured against the largest entry of each variable."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        error = np.abs(found[name].astype(np.float64) - value).max() / np.abs(value).max()
        assert error <= tolerance, (name, error)


def relative_error(found, expected):
    """|found - expected| / |expected| of all variables as one vector."""
    differences = [(found[name] - value).ravel() for name, value in expected.items()]
    lengths = [value.ravel() for value in expected.values()]
    return np.linalg.norm(np.concatenate(differences)) / np.linalg.norm(np.concatenate(lengths))


def trace(run):
    """Per step, the set of (sample, copy, key, pixels) over all ranks."""
    steps = {}
    for path in (run / "trace").iterdir():
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if "sample_ids" not in entry:
                continue
            fields = ("sample_ids", "copies", "augment_keys", "instance_sha256")
            steps.setdefault(entry["step"], []).extend(
                zip(*(entry[f] for f in fields), strict=True)
            )
    return {step: sorted(instances) for step, instances in steps.items()}


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", WORLDS)
def test_ranks_change_neither_instances_nor_weights(ranks, runs):
    one, many = runs(1), runs(ranks)
    assert len(trace(one / "fp64")[0]) == 2 * 192
    assert trace(many / "fp64") == trace(one / "fp64")
    assert_close(weights(many / "fp64"), weights(one / "fp64"), 1e-9)
    if (many / "fp32").exists():
        assert trace(many / "fp32") == trace(one / "fp64")
        # All variables as one: in fp32 an activation may fall on the other side of a ReLU's kink,
        # which moves a single small variable by 1e-4 of itself.
        assert relative_error(weights(many / "fp32"), weights(one / "fp32")) <= 1e-5


@pytest.mark.mpi
def test_16_bits_on_the_way_move_weights_a_little(runs):
    """That the ranks have the same bits is audited with the other runs."""
    error = relative_error(weights(runs(2) / "bf16_sent"), weights(runs(2) / "fp32"))
    assert 1e-6 < error < 1e-3


def everything(run):
    return checkpoint.newest_good(checkpoint.folder_of(run)).arrays


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_change_nothing_of_adamw_clipping_and_the_average(ranks, runs):
    one, many = everything(runs(1) / "adamw"), everything(runs(ranks) / "adamw")
    assert set(many) == set(one)
    kinds = Counter(name.split("/")[0] for name in one)
    assert kinds["average"] == kinds["model"] > kinds["first_moment"] == kinds["second_moment"] > 0
    assert_close_or_zero(many, one)


def assert_close_or_zero(many, one):
    """What is all zeros in one has no relative error, and must be so in the other."""
    zero = {name for name, value in one.items() if not value.any()}
    assert zero == {name for name, value in many.items() if not value.any()}
    assert_close(
        *({n: a for n, a in found.items() if n not in zero} for found in (many, one)), 1e-9
    )


@pytest.mark.mpi
def test_adamw_and_the_average_go_on_bit_for_bit(runs):
    whole, parts = everything(runs(2) / "adamw"), everything(runs(2) / "adamw_parts")
    assert set(whole) == set(parts) and whole["updates"] == whole["average_updates"] == 3
    for name, value in whole.items():
        assert parts[name].tobytes() == value.tobytes(), name


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_change_nothing_of_lars_and_of_the_norm_that_is_matched(ranks, runs):
    """One rank, two groups of one with two copies each, two groups of two with one copy each."""
    one, many = everything(runs(1) / "matched"), everything(runs(ranks) / "matched")
    assert_close_or_zero(many, one)
    assert one["norm_ratio"] > 1.01
    layouts = json.loads((runs(ranks) / "matched" / "config.json").read_text())["layouts"]
    assert layouts[-1][1]["group_size"] == ranks // 2


@pytest.mark.mpi
def test_a_matched_norm_goes_on_bit_for_bit(runs):
    whole, parts = everything(runs(2) / "matched"), everything(runs(2) / "matched_parts")
    assert set(whole) == set(parts)
    for name, value in whole.items():
        assert parts[name].tobytes() == value.tobytes(), name


@pytest.mark.mpi
def test_the_average_is_what_is_evaluated(runs):
    run = runs(2) / "adamw"
    summary = json.loads((run / "summary.json").read_text())
    done = warm(1, "eval", run)
    assert f"val_loss {summary['val_loss']:.4f}" in done.stdout
    arrays = everything(run)
    assert arrays["model/stem/kernel"].tobytes() != arrays["average/stem/kernel"].tobytes()


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RESUMED)
def test_microbatches_change_nothing_beyond_rounding(ranks, runs):
    assert_close(weights(runs(ranks) / "at_once"), weights(runs(ranks) / "fp64"), 1e-9)


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_change_nothing_of_dropout_and_drop_path(ranks, runs):
    """Also with all instances at once, computed again in the backward pass: masks are the same."""
    one, several = runs(1) / "noise", [runs(ranks) / "noise"]
    several += [runs(ranks) / "noise_again"] if ranks == 2 else []
    for many in several:
        assert_close(weights(many), weights(one), 1e-9)


@pytest.mark.mpi
def test_dropout_and_drop_path_go_on_bit_for_bit(runs):
    whole, parts = everything(runs(2) / "noise"), everything(runs(2) / "noise_parts")
    for name, value in whole.items():
        assert parts[name].tobytes() == value.tobytes(), name


@pytest.mark.mpi
def test_recomputation_changes_nothing_beyond_rounding(runs):
    assert_close(weights(runs(2) / "again"), weights(runs(2) / "fp64"), 1e-9)


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", WORLDS)
def test_runs_pass_audit_and_count_what_they_did(ranks, runs):
    for run in runs(ranks).iterdir():
        steps, problems = audit(run)
        assert problems == []
        summary = json.loads((run / "summary.json").read_text())
        assert steps == summary["steps"] == (8 if run.name in ("parts", "whole") else 3)
        assert summary["samples"] * 2 == summary["instances"]


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RESUMED)
def test_a_resumed_run_equals_the_undisturbed_one_bit_for_bit(ranks, runs):
    whole, parts = runs(ranks) / "whole", runs(ranks) / "parts"
    expected = checkpoint.newest_good(checkpoint.folder_of(whole))
    found = checkpoint.newest_good(checkpoint.folder_of(parts))
    assert found.step == expected.step == 8
    assert set(found.arrays) == set(expected.arrays)
    for name, value in expected.arrays.items():
        assert found.arrays[name].tobytes() == value.tobytes(), name
    assert trace(parts) == trace(whole)
    # A step that is done twice would be in the metrics twice.
    steps = [json.loads(line)["step"] for line in (parts / "metrics.jsonl").open()]
    assert sorted(steps) == steps


@pytest.mark.mpi
def test_one_process_in_float64_computed_from_the_update_rule(runs):
    from ba_dist import runtime

    runtime.quiet()
    from ba_dist import experiment
    from ba_dist.config import override
    from ba_dist.data.augment import Augmentation
    from ba_dist.data.catalog import open_source
    from ba_dist.models.precision import set_precision
    from ba_dist.recipes import recipe
    from ba_dist.rules.schedules import learning_rate
    from tests.parallel import reference

    config = override(recipe("quickstart"), {**SAME, "precision": "fp64"})
    source = open_source(config.data, "train")
    augmentation = Augmentation(config.augment, source.info)
    lines = (runs(1) / "fp64" / "trace" / "rank-00000.jsonl").read_text().splitlines()
    entries = [entry for entry in map(json.loads, lines) if "sample_ids" in entry]
    steps = [reference.instances(entry, source, augmentation) for entry in entries]
    rule = config.optimizer
    rate = learning_rate(
        rule.lr,
        10_000 // 192,
        rule.lr_shape,
        scale=rule.lr_scale,
        warmup_steps=rule.warmup_epochs * (10_000 // 192),
        warmup_from=rule.warmup_from,
    )
    for precision, tolerance in (("fp64", 1e-9), ("fp32", 1e-4)):
        this = override(config, {"precision": precision})
        model = experiment.assemble(this, source.info, 32).model
        set_precision("fp32")
        start = {v.path: v.numpy().astype(np.float64) for v in model.variables}
        moving = {name: value for name, value in start.items() if "/moving_" in name}
        initial = {name: value for name, value in start.items() if name not in moving}
        expected = reference.train(initial, moving, steps, 32, rule, rate)
        for ranks in (1, 2, 4):
            found = weights(runs(ranks) / precision)
            assert set(found) == set(expected)
            assert relative_error(found, expected) <= tolerance, (precision, ranks)


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2])
def test_one_copy_is_plain_data_parallel_sgd_bit_for_bit(ranks, tmp_path):
    program("plain_sgd.py", ranks, tmp_path, run=warm)
    ours, plain = (np.load(tmp_path / f"{name}.npz") for name in ("ours", "plain"))
    assert set(ours) == set(plain)
    for name in ours:
        assert ours[name].tobytes() == plain[name].tobytes(), name


@pytest.mark.mpi
def test_a_signal_to_one_rank_stops_all_with_a_checkpoint_and_status_75(tmp_path):
    flags = ["--steps", "400", "--train-samples", "2000", "--val-samples", "100", "--trace"]
    words = ["train", "quickstart", "--run-dir", str(tmp_path / "run"), *flags]
    with Job(2, words, tmp_path / "run") as job:
        job.until_step(10)
        job.process(1).terminate()
        status, output, _ = job.wait()
    assert status == 75, output
    assert "stopped on request" in output and "exited with non-zero status" not in output
    found = checkpoint.newest_good(checkpoint.folder_of(tmp_path / "run"))
    assert 0 < found.step < 400
    steps, problems = audit(tmp_path / "run")
    assert (steps, problems) == (found.step, [])
    done = warm(2, *words[:-1], "--steps", found.step + 2, "--trace")
    assert f"going on at step {found.step}" in done.stdout
    assert audit(tmp_path / "run") == (found.step + 2, [])
