"""benchmarks/accuracy.py: which runs are compared, and what is refused before any is trained."""

import importlib
import json
import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]


@pytest.fixture
def accuracy(monkeypatch):
    """The program, which imports what lies beside it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("accuracy")


def test_all_experiments_make_as_many_updates(accuracy, capsys, monkeypatch):
    """A comparison of fewer updates with more would be silently wrong."""
    from ba_dist.cli import main

    steps = {}
    for experiment in accuracy.experiments(8, [2, 4], 16, 0.2):
        words = ["--train-samples=1024", "--batch-size=64", "--dataset=synthetic", "--dry-run"]
        monkeypatch.setattr(
            sys, "argv", ["ba-dist", "train", "quickstart", *words, *experiment.flags]
        )
        with suppress(SystemExit):
            main()
        steps[experiment.folder] = int(re.search(r", (\d+) steps", capsys.readouterr().out)[1])
    assert steps.pop("half") == 128
    assert set(steps.values()) == {256}


def leave_run(folder, top1, dataset="fashion_mnist"):
    """What a run leaves of which the benchmark reads something."""
    folder.mkdir(parents=True)
    sizes = {"multiplicity": 1, "batch_size": 64, "steps": 8, "instances": 512, "seconds": 1.0}
    (folder / "summary.json").write_text(json.dumps({"val_top1": top1, **sizes}))
    facts = {"config": {"data": {"dataset": dataset}}}
    (folder / "config.json").write_text(json.dumps(facts))


def test_runs_of_other_seeds_in_the_same_folder_do_not_count(accuracy, tmp_path):
    """A sweep goes on with more seeds: `--seeds 3,4` after `--seeds 0,1,2`."""
    for seed in range(5):
        leave_run(tmp_path / f"seed={seed}", seed / 10)
    runs = accuracy.finished(tmp_path, [4, 3], "fashion_mnist")
    line = accuracy.row("x", [4, 3], runs, accuracy.finished(tmp_path, [0, 1], "fashion_mnist"))
    assert (line["seeds"], line["accuracy"]) == ([4, 3], [40, 30])
    assert (line["mean"], line["difference"]) == pytest.approx((35, 30))
    leave_run(tmp_path / "one" / "run", 0.7)  # one seed is no axis of a sweep
    one = accuracy.finished(tmp_path / "one", [3], "fashion_mnist")
    assert [run["val_top1"] for run in one] == [0.7]


def test_digits_in_place_of_the_dataset_are_refused(accuracy, tmp_path):
    from ba_dist.errors import UserError

    leave_run(tmp_path / "run", 0.9, "digits")
    with pytest.raises(UserError, match="run was trained on digits, not on cifar10, .* --output"):
        accuracy.finished(tmp_path, [0], "cifar10")


def accuracy_of(accuracy, *words):
    return CliRunner().invoke(accuracy.main, [*map(str, words)])


def test_what_cannot_be_compared_is_refused_before_anything_is_trained(
    accuracy, tmp_path, monkeypatch
):
    monkeypatch.setattr(accuracy.subprocess, "run", lambda command: pytest.fail("trained"))
    found = []
    monkeypatch.setattr("harness.leave", found.append)
    output = ["--output", tmp_path / "accuracy.json"]
    accuracy_of(accuracy, "--copies", 3, "--epochs", 9, "--samples", 1920, *output)
    accuracy_of(accuracy, "--copies", 3, "--epochs", 8, "--samples", 1920, *output)
    accuracy_of(accuracy, "--copies", 3, "--epochs", 6, "--samples", 1000, *output)
    assert len(found) == 3 and all("--epochs" in message for message in found[:2])
    assert "and even" in found[0] and "a multiple of B·M, 192" in found[2]
    done = accuracy_of(accuracy, "--seeds", "0,-1", *output)
    assert done.exit_code == 2 and "must hold numbers from 0 up" in done.output


def test_one_seed_has_no_interval_and_the_file_is_json(accuracy, tmp_path, monkeypatch):
    """JSON knows no infinity."""

    def train(experiment, shared, home):
        half = 2 if experiment.folder == "half" else 1
        leave_run(home / "run", 0.8)
        path = home / "run" / "summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "steps": 8 // half}))

    monkeypatch.setattr(accuracy, "train", train)
    path = tmp_path / "accuracy.json"
    done = accuracy_of(accuracy, "--seeds", 0, "--output", path)
    assert done.exit_code == 0, done.output

    def refuse(constant):
        raise AssertionError(constant)

    results = json.loads(path.read_text(), parse_constant=refuse)["results"]
    assert {line["interval"] for line in results} == {None}
    assert all(line["seeds"] == [0] and line["accuracy"] == [80] for line in results)
    assert "±" not in done.output
