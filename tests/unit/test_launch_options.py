"""What the launchers ask of each MPI and of Slurm, on a node of 16 cores with two threads each."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CLONE = Path(__file__).parents[2]
SAYS = {
    "openmpi5": "mpirun (Open MPI) 5.0.11",
    "openmpi4": "mpirun (Open MPI) 4.1.4",
    "mpich": "HYDRA build details:",
    "intel": "Intel(R) MPI Library for Linux* OS, Version 2021.16",
}


@pytest.fixture
def asked(tmp_path):
    """(status, the words of a dry run or what was refused) of a launcher in a clone."""
    shutil.copytree(CLONE / "launch", tmp_path / "launch")
    (tmp_path / "launch" / "probe.py").write_text("print(16, 1, 1, 32)")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / "bin").mkdir()

    def asked(launcher, *words, mpi="openmpi5", **env):
        for name in ("mpirun", "mpiexec.hydra", "srun"):
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\necho '{SAYS[mpi]}'\n")
            (tmp_path / "bin" / name).chmod(0o755)
        (tmp_path / ".venv" / ".setup-mpi").write_text(f"{tmp_path / 'bin' / 'mpirun'}\ncpu\n")
        line = [tmp_path / "launch" / launcher, "--dry-run", *words, "--", "train", "quickstart"]
        path = f"{tmp_path / 'bin'}:{os.defpath}"
        done = subprocess.run(line, env={"PATH": path, **env}, capture_output=True, text=True)
        return done.returncode, shlex.split(done.stdout) or done.stderr

    return asked


def test_a_variable_that_is_given_is_not_exported_once_more(asked):
    status, words = asked("mpirun.sh", "-n", "2", "-x", "NCCL_DEBUG=INFO", NCCL_DEBUG="WARN")
    given = [b for a, b in zip(words, words[1:], strict=False) if a == "-x"]
    assert status == 0 and "OMP_NUM_THREADS" in given
    assert [name for name in given if name.startswith("NCCL")] == ["NCCL_DEBUG=INFO"]


@pytest.mark.parametrize(
    ("set_already", "shown"),
    [
        ({}, {"I_MPI_PIN_DOMAIN=16"}),  # 8 cores a rank: it counts hardware threads
        ({"I_MPI_PIN_DOMAIN": "socket"}, {"I_MPI_PIN_DOMAIN=socket"}),
        ({"I_MPI_PIN": "off"}, {"I_MPI_PIN=off"}),
    ],
)
def test_intel_mpi_pins_a_rank_to_all_threads_of_its_cores(asked, set_already, shown):
    _, words = asked("mpirun.sh", "-n", "2", mpi="intel", **set_already)
    assert {word for word in words if word.startswith("I_MPI_PIN")} == shown
    assert "I_MPI_THREAD_YIELD=2" in words and "OMP_NUM_THREADS=8" in words
    # Its mpirun is a script that a signal ends before the ranks have saved.
    assert any(word.endswith("/bin/mpiexec.hydra") for word in words)


def test_intel_mpi_has_numbers_of_ranks_beside_the_hosts(asked):
    status, words = asked("mpirun.sh", "-H", "node1:4,node2:4", mpi="intel")
    line = " ".join(words)
    assert status == 0 and all(
        part in line for part in (" -n 8 ", " -ppn 4 ", " -hosts node1,node2 ")
    ), line
    status, said = asked("mpirun.sh", "-H", "node1:4,node2:2", mpi="intel")
    assert status == 1 and "--hostfile" in said
    _, words = asked("mpirun.sh", "-H", "node1:4,node2:2", mpi="mpich")
    assert "-hosts node1:4,node2:2" in " ".join(words)


def test_the_most_slots_of_a_host_are_not_its_slots(asked, tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("node1 slots=4 max_slots=8\nnode2 max-slots=8 slots = 4\n# node3:2\nnode4:2\n")
    status, words = asked("mpirun.sh", "--hostfile", hosts)
    assert status == 0 and words[words.index("-n") + 1] == "10"


@pytest.mark.parametrize(
    ("words", "threads", "cpus"),
    [
        (["-n4", "-c8"], 8, 8),
        (["-n", "4", "-c", "8"], 8, 8),
        (["-N1", "-n4"], 4, 8),
        (["--nodes=1", "--ntasks=4"], 4, 8),
    ],
)
def test_srun_reads_flags_with_and_without_a_space(asked, words, threads, cpus):
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "32"}
    _, shown = asked("srun.sh", *words, **job)
    assert {f"OMP_NUM_THREADS={threads}", f"SRUN_CPUS_PER_TASK={cpus}"} <= set(shown)


def test_a_shell_of_salloc_on_another_machine_takes_the_cores_of_the_allocation(asked):
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_CPUS_PER_NODE": "128(x2)"}
    _, shown = asked("srun.sh", "-n", "4", **job)
    assert {"OMP_NUM_THREADS=64", "SRUN_CPUS_PER_TASK=64"} <= set(shown)


def test_few_ranks_in_a_large_allocation_share_its_first_node(asked):
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "8"}
    _, shown = asked("mpirun.sh", "-n", "2", SLURM_TASKS_PER_NODE="4(x2)", **job)
    assert "OMP_NUM_THREADS=8" in shown
