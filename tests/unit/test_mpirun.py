"""launch/mpirun.sh with an Open MPI 5 that behaves as it has been seen to do now and then."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

CLONE = Path(__file__).parents[2]
HANGS = """\
#!/bin/bash
if [ "$1" = --version ]; then echo "mpirun (Open MPI) 5.0.11"; exit; fi
trap '' TERM USR2
{said}
while :; do sleep 0.1; done
"""
REPORT = """\
echo "prterun detected that one or more processes exited with non-zero status," >&2
echo "   Exit code:    75" >&2
"""


@pytest.fixture
def start(tmp_path):
    """Starts launch/mpirun.sh of a clone whose mpirun does what a script says."""
    shutil.copytree(CLONE / "launch", tmp_path / "launch")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    mpirun = tmp_path / "mpirun"
    (tmp_path / ".venv" / ".setup-mpi").write_text(f"{mpirun}\ncpu\n")

    def start(said, **env):
        mpirun.write_text(HANGS.format(said=said))
        mpirun.chmod(0o755)
        words = [tmp_path / "launch" / "mpirun.sh", "-n", "2", "--", "train", "quickstart"]
        env = {"PATH": "/usr/bin:/bin", **env}
        return subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)

    return start


def test_a_launcher_that_has_reported_the_end_and_stays_is_killed(start):
    begun = time.monotonic()
    job = start(REPORT, BA_DIST_LINGER_SECONDS="1")
    _, said = job.communicate(timeout=60)
    assert job.returncode == 75, said
    assert time.monotonic() - begun < 20


def test_a_launcher_that_does_not_stop_when_asked_is_killed(start):
    job = start("echo ready >&2", BA_DIST_STOP_SECONDS="1")
    assert job.stderr.readline() == "ready\n"
    job.terminate()
    _, said = job.communicate(timeout=60)
    assert job.returncode == 128 + 9, said


def test_a_launcher_that_stays_when_all_its_ranks_are_gone_is_killed(start):
    """It has said nothing; the ranks are dead, and it does not look at them."""
    dead = "exec python3 -c 'import os, time; os.fork() or os._exit(3); time.sleep(1000)'"
    job = start(dead, BA_DIST_LINGER_SECONDS="2")
    _, said = job.communicate(timeout=60)
    assert job.returncode == 128 + 9, said


def test_a_launcher_whose_ranks_run_is_left_alone(start):
    job = start("echo ready >&2; sleep 6; exit 3", BA_DIST_LINGER_SECONDS="2")
    _, said = job.communicate(timeout=60)
    assert (job.returncode, said) == (3, "ready\n")
