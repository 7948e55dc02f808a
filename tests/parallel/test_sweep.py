"""A sweep that is interrupted goes on with the same command, and ends with the table."""

import json
import signal
import statistics
import subprocess
import sys
import time

import pytest

from tests.parallel.jobs import metrics

STEPS = 100
WORDS = [
    *("sweep", "quickstart", "--dataset", "synthetic-colour", "--image-size", "16"),
    *("--image-channels", "1", "--train-samples", "1000", "--val-samples", "50"),
    *("--batch-size", "16", "--multiplicity", "1,2", "--seeds", "0,1", "--log-every", "1"),
    *("--steps", str(STEPS), "--eval-every", "10", "--ranks", "2"),
]
RUNS = [f"multiplicity={copies},seed={seed}" for copies in (1, 2) for seed in (0, 1)]


def begin(folder):
    command = [sys.executable, "-m", "ba_dist", *WORDS, "--output", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.mpi
@pytest.mark.smoke
def test_a_sweep_is_interrupted_and_goes_on(tmp_path):
    folder = tmp_path / "sweep"
    job = begin(folder)
    deadline = time.monotonic() + 600
    while not metrics(folder / RUNS[2]):  # the third has begun
        assert job.poll() is None and time.monotonic() < deadline, job.communicate()[0]
        time.sleep(0.02)
    job.send_signal(signal.SIGINT)
    said = job.communicate(timeout=600)[0]
    assert job.returncode == 75, said
    assert "stopped on request" in said and "failed" not in said and "Traceback" not in said
    done = metrics(folder / RUNS[2])[-1]["step"]
    assert 0 < done < STEPS and not (folder / RUNS[3]).exists()
    before = [(folder / run / "metrics.jsonl").read_text() for run in RUNS[:2]]

    again = begin(folder)
    said = again.communicate(timeout=600)[0]
    assert again.returncode == 0, said
    assert "2 of 4 runs were finished before" in said
    assert before == [(folder / run / "metrics.jsonl").read_text() for run in RUNS[:2]]
    assert f"going on at step {done} of {STEPS}" in (folder / "logs" / f"{RUNS[2]}.log").read_text()
    for run in RUNS:
        steps = [event["step"] for event in metrics(folder / run) if event["event"] == "step"]
        assert steps == list(range(1, STEPS + 1))
    layouts = [json.loads((folder / run / "config.json").read_text())["layout"] for run in RUNS]
    assert [layout["group_size"] for layout in layouts] == [1, 1, 2, 2]
    assert {layout["batch_size"] for layout in layouts} == {16}
    # The table, from the runs' own summaries.
    rows = json.loads((folder / "table.json").read_text())["rows"]
    for row, runs in zip(rows, (RUNS[:2], RUNS[2:]), strict=True):
        values = [json.loads((folder / r / "summary.json").read_text())["val_top1"] for r in runs]
        found = row["results"]["val_top1"]
        assert (row["missing"], found["values"]) == ([], values)
        assert found["mean"] == pytest.approx(statistics.fmean(values))
        assert found["deviation"] == pytest.approx(statistics.stdev(values))
    assert said.endswith((folder / "table.txt").read_text())
