"""Tiny runs of the benchmarks on two ranks: what they print and leave, not how fast they are."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.parallel.ranks import ROOT, warm

SITE_CHECK = re.compile(r"Img/sec per (GPU|CPU): +([0-9.]+) +\+-([0-9.]+)")
PROGRAMS = ROOT / "benchmarks"


def one_command(name, *words):
    """Runs a benchmark that starts its ranks itself."""
    line = [sys.executable, str(PROGRAMS / name), *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.mpi
@pytest.mark.smoke
def test_throughput_with_baselines(tmp_path):
    output = tmp_path / "t.json"
    done = warm(
        2, "python", PROGRAMS / "throughput.py", "--model", "resnet8", "--image-size", 8,
        "--batch-sizes", "2,4", "--trials", 2, "--warm-up", 1, "--baseline", "horovod",
        "--baseline", "plain", "--output", output,
    )  # fmt: skip
    *_, first, last = done.stdout.splitlines()
    shown = SITE_CHECK.fullmatch(first)
    assert shown and re.fullmatch(r"Total img/sec on 2 (GPU|CPU)\(s\): [0-9.]+ \+-[0-9.]+", last)
    results = json.loads(output.read_text())["results"]
    assert [(r["contender"], r["batch_size_per_rank"]) for r in results] == [
        (name, size) for size in (2, 4) for name in ("ba_dist", "horovod", "plain")
    ]
    of_last_size = results[-3]
    assert of_last_size["images_per_second_per_rank"]["median"] == pytest.approx(
        float(shown[2]), abs=0.051
    )
    for result in results:
        each, total = result["images_per_second_per_rank"], result["images_per_second"]
        ranks = 1 if result["contender"] == "plain" else 2
        assert total["median"] == pytest.approx(ranks * each["median"]) and each["trials"] == 2


@pytest.mark.mpi
@pytest.mark.smoke
def test_throughput_of_real_input(tmp_path):
    output = tmp_path / "t.json"
    warm(
        2, "python", PROGRAMS / "throughput.py", "--model", "resnet8", "--image-size", 16,
        "--batch-sizes", 4, "--multiplicity", 2, "--trials", 2, "--warm-up", 1,
        "--dataset", "synthetic-jpeg", "--baseline", "fixed", "--output", output,
    )  # fmt: skip
    content = json.loads(output.read_text())
    assert [r["contender"] for r in content["results"]] == ["ba_dist", "fixed"]
    assert content["layout"]["groups"] == 1 and content["results"][0]["distinct_samples"] == 4


@pytest.mark.mpi
@pytest.mark.smoke
@pytest.mark.parametrize("compute", ["--compute-ms=5", "--model=resnet8"])
def test_scaling(compute, tmp_path):
    output = tmp_path / "s.json"
    printed = one_command(
        "scaling.py", "--ranks", 2, "--multiplicities", "1,2,3", "--batch-per-rank", 4, compute,
        "--gradient-mb", 0.1, "--image-size", 16, "--rounds", 2, "--steps", 2, "--warm-up", 1,
        "--output", output,
    )  # fmt: skip
    content = json.loads(output.read_text())
    assert [r["multiplicity"] for r in content["results"]] == [1, 2]
    assert "M = 3 on 2 ranks left out" in printed
    for result in content["results"]:
        assert result["steps_per_second"]["trials"] == 4
        assert set(result["milliseconds"]) == {"input", "compute", "allreduce"}
        if compute.startswith("--compute"):
            assert result["milliseconds"]["compute"]["median"] >= 5
        assert result["milliseconds"]["allreduce"]["median"] > 0
    assert output.with_suffix(".png").stat().st_size > 1000


@pytest.mark.mpi
@pytest.mark.smoke
@pytest.mark.parametrize("compute", ["--compute-ms=20", "--model=resnet8"])
def test_overlap(compute, tmp_path):
    output = tmp_path / "o.json"
    warm(
        2, "python", PROGRAMS / "overlap.py", compute, "--gradient-mb", 0.2, "--image-size", 16,
        "--instances", 8, "--microbatch", 4, "--buckets-mb", "0,0.05", "--allreduce-dtype", "bf16",
        "--rounds", 2, "--steps", 2, "--warm-up", 1, "--output", output,
    )  # fmt: skip
    results = {r["way"]: r["milliseconds"] for r in json.loads(output.read_text())["results"]}
    assert list(results) == ["alone", "allreduce", "0 MB", "0.05 MB"]
    for way, parts in results.items():
        assert parts["step"]["trials"] == 4
        assert (parts["compute"]["median"] > 0) == (way != "allreduce")
        if compute.startswith("--compute") and way != "allreduce":
            assert parts["compute"]["median"] >= 20


@pytest.mark.mpi
@pytest.mark.smoke
def test_groups_read_a_share_of_what_replicas_read(tmp_path):
    output = tmp_path / "g.json"
    one_command(
        "group_io.py", "--multiplicities", 2, "--rounds", 2, "--seconds", 0.05, "--photos", 64,
        "--batch-size", 8, "--output", output,
        "--contenders", "replicate,broadcast,cooperative,tf.data,tf.data-service",
    )  # fmt: skip
    results = {r["contender"]: r for r in json.loads(output.read_text())["results"]}
    assert len(results) == 5
    assert all(len(result["rates"]) == 2 for result in results.values())
    assert {"to_replicate", "to_tf_data"} <= set(results["cooperative"])
    if shutil.which("strace") is None:
        pytest.skip("strace is not here to count bytes")
    replicated = results["replicate"]["bytes_read"]
    assert results["broadcast"]["bytes_read"] * 2 == replicated
    assert results["cooperative"]["bytes_read"] * 2 == replicated


@pytest.mark.mpi
@pytest.mark.smoke
def test_groups_make_instances_ready(tmp_path):
    """Several turns each, so that no contender waits for batches that it may not begin."""
    output = tmp_path / "g.json"
    printed = one_command(
        "group_io.py", "--ready", "--multiplicities", 2, "--rounds", 2, "--seconds", 0.05,
        "--photos", 64, "--batch-size", 8, "--output", output,
    )  # fmt: skip
    results = {r["contender"]: r for r in json.loads(output.read_text())["results"]}
    assert list(results) == ["replicate", "broadcast", "cooperative", "tf.data"]
    assert "ready for the network" in printed and "streaming left out" in printed
    for result in results.values():
        assert len(result["rates"]) == 2 and min(result["rates"]) > 0
        assert "bytes_read" not in result and result["to_tf_data"]["median"] > 0
