"""A pipeline that is left early, at any batch: threads end before their memory goes."""

import re

import pytest

from tests.parallel.ranks import PROGRAMS, mpirun, program

TRIES = {1: 10, 2: 50, 4: 20}
KINDS = {
    "script": "a script's pipeline left early: no hang, no crash",
    "training": "a run's pipeline left early: its threads have ended when its memory goes",
}


@pytest.mark.mpi
@pytest.mark.faults
@pytest.mark.parametrize("ranks", TRIES)
def test_a_pipeline_is_left_at_any_batch(ranks, promise):
    tries = TRIES[ranks]
    output = program("leaving.py", ranks, tries)
    for kind, what in KINDS.items():
        good = [int(n) for n in re.findall(rf"rank \d+, {kind}: (\d+) of {tries}", output)]
        assert len(good) == ranks
        promise(18, what, min(good), tries)


@pytest.mark.mpi
@pytest.mark.faults
def test_a_lane_that_has_failed_ahead_ends_the_job_when_all_leave(promise):
    """The other lane waits for it in an exchange that it will not come to."""
    done = mpirun(2, "python", PROGRAMS / "failing_lane.py", timeout=60, check=False)
    good = done.returncode == 1 and "rank 1 on " in done.stderr and "it is rotten" in done.stderr
    good &= "left as if" not in done.stdout
    promise(18, "left after a lane has failed in what was read ahead: over, named", int(good), 1)
