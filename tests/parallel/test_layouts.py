"""The invariants of a group, for every layout that is allowed, from traces of real ranks."""

import json
import shutil

import pytest

from ba_dist.analysis.audit import audit
from tests.parallel.ranks import WIDE, mpirun


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, *(pytest.param(n, marks=WIDE) for n in (5, 6))])
def test_every_layout_keeps_the_invariants(ranks, traces):
    runs = sorted(traces(ranks).iterdir())
    assert len(runs) >= 10
    for run in runs:
        steps, problems = audit(run)
        assert (steps, problems) == (4, []), run.name


@pytest.mark.mpi
def test_a_trace_broken_on_one_rank_is_caught(traces, tmp_path):
    run = shutil.copytree(traces(4) / "M4-R2-B16", tmp_path / "run")
    path = run / "trace" / "rank-00002.jsonl"
    lines = path.read_text().splitlines()
    entry = json.loads(lines[1])
    entry["copies"][0] += 1
    path.write_text("\n".join([lines[0], json.dumps(entry), *lines[2:]]))
    _, problems = audit(run)
    assert any(f"step {entry['step']}, rank 2" in problem for problem in problems)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("ranks", "flags", "found", "valid"),
    [
        (4, ["--multiplicity", 2, "--batch-size", 65], "--batch-size 65", ["64", "128"]),
        (
            3,
            ["--multiplicity", 2, "--group-size", 2],
            "--group-size 2",
            ["with --group-size 1, --batch-size values that work"],
        ),
        (2, ["--microbatch", 48], "--microbatch 48", ["32, 64"]),
        (
            *(2, ["--auto-augment", "cifar10", "--rand-augment", 2]),
            *("--rand-augment 2", ["--auto-augment cifar10", "exclude each other"]),
        ),
    ],
)
def test_what_cannot_work_is_refused_once_before_data_opens(ranks, flags, found, valid):
    done = mpirun(ranks, "train", "quickstart", "--data-dir", "/nowhere", *flags, check=False)
    assert done.returncode == 2
    assert done.stderr.count(found) == 1
    assert all(text in done.stderr for text in valid)
    assert "Traceback" not in done.stderr
