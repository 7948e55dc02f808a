"""The program that compares Horovod's sums with a closed form, on the CPU."""

import pytest

from tests.parallel.ranks import ROOT, mpirun


@pytest.mark.mpi
def test_the_sums_of_three_ranks():
    done = mpirun(3, "python", ROOT / "launch" / "check_allreduce.py", "CPU")
    lines = done.stdout.splitlines()
    assert lines[-1] == "all sums over 3 ranks are right, on CPUs"
    assert sum(line.startswith("ok ") for line in lines) == 9
