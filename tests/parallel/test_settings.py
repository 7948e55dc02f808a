"""Recipes and files of people's own on several ranks."""

import json

import pytest

from tests.parallel.ranks import warm

OWN = """
import dataclasses
from mpi4py import MPI
from ba_dist.config import Config, override

def short():
    return override(Config("any"), {"dataset": "synthetic", "steps": 2, "val_samples": 10})

def differs():
    return override(short(), {"seed": MPI.COMM_WORLD.rank})
"""


@pytest.mark.mpi
def test_a_recipe_and_a_file_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "my.yaml").write_text("multiplicity: 2\nseed: 5\n")
    words = ["train", f"{tmp_path}/mine.py:short", "--config", tmp_path / "my.yaml"]
    for steps in (1, 2):  # the second goes on
        done = warm(2, *words, "--seed", 6, "--steps", steps, "--run-dir", tmp_path / "run")
    assert "going on at step 1 of 2" in done.stdout
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["recipe"] == "short"
    assert (config["batch"]["multiplicity"], config["run"]["seed"]) == (2, 6)


@pytest.mark.mpi
def test_ranks_with_other_settings_are_refused(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    done = warm(2, "train", f"{tmp_path}/mine.py:differs", check=False)
    assert done.returncode == 2
    assert "rank 1: " in done.stderr and "other settings here than on rank 0" in done.stderr


@pytest.mark.mpi
def test_a_dry_run_is_said_once_for_the_ranks_that_are_there():
    done = warm(2, "train", "quickstart", "--dataset", "synthetic", "--dry-run")
    assert done.stdout.count("2 ranks = 1 groups of 2") == 1 and done.stderr == ""
