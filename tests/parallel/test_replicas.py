"""Replicas are the same at the start, and a run ends where they are not."""

import json

import pytest

from tests.parallel.ranks import program, warm

TRIES = 20


@pytest.mark.mpi
@pytest.mark.faults
def test_replicas_that_start_or_go_apart(tmp_path, promise):
    lines = program("replicas.py", 3, tmp_path, TRIES, run=warm).splitlines()
    starts = [line.split(" starts alike: ")[1] for line in lines if " starts alike: " in line]
    alike = len(starts) == 3 and len(set(starts)) == 1 and starts[0].startswith("True")
    promise(17, "a rank drew random numbers before: all start with the seed's weights", alike, 1)
    caught = [int(line.split()[3]) for line in lines if " caught: " in line]
    assert len(caught) == 3
    what = "the weights of one rank moved: named, the run over, nothing saved"
    promise(17, what, min(caught), TRIES)

    for rank in range(3):
        path = tmp_path / "drawn-1" / "trace" / f"rank-{rank:05d}.jsonl"
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        assert [entry["weights_after"] for entry in entries if "sha256" in entry] == [0, 1]
