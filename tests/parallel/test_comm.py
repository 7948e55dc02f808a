"""Ranks fail together: nobody waits in a collective for one that is gone. What is sent arrives."""

import os
import signal
import subprocess
import time

import pytest

from tests.parallel.jobs import Job, shallow
from tests.parallel.ranks import LAUNCHER, PROGRAMS, hydra, mpirun, program


@pytest.mark.mpi
def test_a_rank_stays_on_the_processor_that_the_launcher_was_given():
    """Each one in turn: Open MPI would bind it to the first one of the machine."""
    told = "import os; print(sorted(os.sched_getaffinity(0)))"
    for cpu in sorted(os.sched_getaffinity(0)):
        line = ["taskset", "-c", str(cpu), LAUNCHER, "-n", "1", "--", "python", "-c", told]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines() == [f"[{cpu}]"], done.stderr


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
    assert "ba-dist: rank 2: file x is damaged" in done.stderr
    assert "nobody should come here" not in done.stdout


@pytest.mark.mpi
@pytest.mark.parametrize("launcher", ["known", "unknown"])
@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [("alone", 1, "file x is damaged"), ("interrupted", 130, "interrupted")],
)
def test_what_ends_one_rank_of_a_command_ends_all(kind, status, text, launcher):
    """The others are in a collective, a thread of the one that ends, too."""
    program = PROGRAMS / "one_rank_fails.py"
    done = mpirun(3, "python", program, kind, launcher, check=False, timeout=30)
    assert (done.returncode, done.stderr.count("ba-dist: rank 2 on ")) == (status, 1), done.stderr
    assert text in done.stderr and "nobody should come here" not in done.stdout


@pytest.mark.mpi
def test_a_second_ctrl_c_ends_a_rank_inside_a_collective(tmp_path):
    run = tmp_path / "run"
    with Job(2, shallow(run, "--steps", 2000), run) as job:
        job.until_step(3)
        job.process(0).suspend()
        interrupted = job.process(1)
        for _ in range(2):
            interrupted.send_signal(signal.SIGINT)
            time.sleep(0.1)
        status, output, took = job.wait(timeout=60)
    # Hydra does not tell the rank that ended by itself from the one that it had to kill.
    assert (status if hydra() else status == 130) and took < 30, output


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("largest", [7, 64, 2**30])
def test_what_is_sent_in_pieces_is_what_was_given(ranks, largest):
    assert int(program("messages.py", ranks, largest, timeout=60)) == ranks * 14 + 20


@pytest.mark.mpi
@pytest.mark.parametrize("kind", ["bytes", "parts", "twice"])
def test_more_memory_than_a_container_shares_is_refused_by_all(kind):
    """In a namespace whose /dev/shm has 64 MB."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no namespaces")
    words = f"{LAUNCHER} -n 2 -- python {PROGRAMS / 'shared_room.py'} {kind}"
    script = f"mount -t tmpfs -o size=64m none /dev/shm && exec {words}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    needed = 40 if kind == "twice" else 80
    assert f"the ranks on {os.uname().nodename} have to share {needed} MiB of memory" in done.stdout
    assert "free of 64 MiB" in done.stdout and "--shm-size=1g" in done.stdout
    assert done.stdout.endswith("True\n")  # all ranks of the world have raised it


@pytest.mark.mpi
def test_ranks_that_share_a_gpu_are_refused_together():
    said = program("one_gpu.py", 3, timeout=60)
    assert f"ranks 0, 1 on {os.uname().nodename} share one GPU, 0000:01:00.0. " in said
    assert said.endswith("True\n") and said.count("\n") == 1
