"""`ba-dist calibrate` on two ranks: a machine file that a plan is made with."""

import os

import pytest

from ba_dist.planner import plan, read_machine, seen, workload_of
from ba_dist.recipes import recipe
from tests.parallel.jobs import small
from tests.parallel.ranks import PROGRAMS, warm

SMALL = ["--model", "resnet8", "--image-size", "16", "--batch-sizes", "2,8", "--seconds", 2]


@pytest.mark.mpi
@pytest.mark.smoke
def test_two_ranks_measure_what_they_have(tmp_path):
    """And a run there counts what is predicted of it from that."""
    path, folder = tmp_path / "here.toml", tmp_path / "data"
    folder.mkdir()
    words = [*SMALL, "--precisions", "fp32,bf16", "--storage", folder, "--files", "8"]
    done = warm(2, "calibrate", "--output", path, *words)
    assert done.stdout.count("[storage]") == 1 and done.stderr == ""
    found = read_machine(path)
    assert found.node.ranks == 2 and set(found.step_times["resnet8"]) == {"fp32", "bf16"}
    assert found.step_times["resnet8"]["fp32"].seconds(8) < 5
    # They are on one node: what is between nodes was not measured, and all else was.
    assert {"network.latency", "network.bandwidth", "storage.opens"} <= set(found.assumed)
    assert not {"network.inside_latency", "step.noise", "input.decode"} & set(found.assumed)
    assert found.node.cores == max(1, len(os.sched_getaffinity(0)) // 2)
    assert 1e5 < found.network.inside_bandwidth < 1e12
    assert list(folder.iterdir()) == []
    best = plan(workload_of(recipe("quickstart")), found, 1).best
    assert best is not None and best.way.layout.world_size == 2
    run = tmp_path / "run"
    warm(2, *small(run, "--steps", 6))
    rows = [line.rsplit(None, 3) for line in seen.compare(run, found).splitlines()]
    ratios = {row[0].strip(): row[-1] for row in rows if len(row) == 4}
    assert ratios["records read a step"] == ratios["MB exchanged a step"] == "1.00"


@pytest.mark.mpi
def test_a_fault_on_one_rank_ends_all_of_them(tmp_path):
    """Nobody waits for a rank that has failed while it wrote its files."""
    done = warm(2, "python", PROGRAMS / "storage_fails.py", tmp_path, timeout=60, check=False)
    assert done.returncode != 0 and "TypeError" in done.stderr


@pytest.mark.mpi
@pytest.mark.smoke
def test_a_folder_that_cannot_be_written_ends_all_ranks_with_one_message(tmp_path):
    (tmp_path / "file").touch()
    words = ["calibrate", "--output", tmp_path / "no.toml", *SMALL, "--seconds", "1"]
    done = warm(2, *words, "--storage", tmp_path / "file" / "x", check=False)
    assert done.returncode == 1 and done.stderr.count("ba-dist: ") == 1
    assert "--storage" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "no.toml").exists()
