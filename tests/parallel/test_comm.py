"""Ranks fail together: nobody waits in a collective for one that has gone."""

import time

import pytest

from tests.parallel.ranks import PROGRAMS, mpirun


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("kind", ["main", "thread"])
def test_an_exception_on_one_rank_ends_the_job_with_its_traceback(ranks, kind, promise):
    # Without an end of the job the others would wait for ever.
    program = PROGRAMS / "one_rank_fails.py"
    begun = time.monotonic()
    done = mpirun(ranks, "python", program, kind, check=False, timeout=20)
    assert done.returncode != 0
    assert f"rank {ranks - 1} on " in done.stderr
    assert f"ValueError: spoilt by rank {ranks - 1}" in done.stderr
    assert "nobody should come here" not in done.stdout
    seconds = time.monotonic() - begun
    promise(
        2, "an exception on one rank: over in 10 s, start and all", int(seconds < 10), 1, seconds
    )


@pytest.mark.mpi
def test_what_one_rank_alone_finds_wrong_is_raised_on_all():
    done = mpirun(3, "python", PROGRAMS / "one_rank_fails.py", "together", check=False, timeout=20)
    assert done.returncode != 0
    assert "DataError: rank 2: file x is damaged" in done.stderr
    assert "nobody should come here" not in done.stdout
