"""What a launcher's variables say, and whether shared memory has room."""

import pytest

from ba_dist.comm import shared_memory
from ba_dist.comm.launcher import Launch, launched

LAUNCHERS = {
    "Open MPI": {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8"},
    "MPICH, PALS": {"PMI_RANK": "3", "PMI_SIZE": "8", "PALS_RANKID": "3"},
    "srun": {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "16"},
    "Flux": {"FLUX_TASK_RANK": "3", "FLUX_JOB_SIZE": "8"},
    "jsrun": {"JSM_NAMESPACE_RANK": "3", "JSM_NAMESPACE_SIZE": "8"},
    "MVAPICH2": {"MV2_COMM_WORLD_RANK": "3", "MV2_COMM_WORLD_SIZE": "8"},
}
# A job script itself, and a launcher that gives no number of ranks.
NOBODY = [{}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, {"PMIX_RANK": "3"}]


@pytest.fixture
def clean(monkeypatch):
    for variables in [*LAUNCHERS.values(), *NOBODY]:
        for name in variables:
            monkeypatch.delenv(name, raising=False)
    return lambda names: [monkeypatch.setenv(*item) for item in names.items()]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_launchers_that_are_known(clean, name):
    clean(LAUNCHERS[name])
    assert launched() == Launch(3, 8)


@pytest.mark.parametrize("variables", NOBODY)
def test_where_nothing_is_said(clean, variables):
    clean(variables)
    assert launched() is None


# --- shared memory ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needed", "free", "total", "said"),
    [
        (0, 0, 0, ""),
        (64, 64, 64, ""),
        (65, 64, 64, "share 65 MiB of memory, but /dev/shm has 64 MiB free of 64 MiB"),
        (180, 40, 64, "docker run --shm-size=1g"),
        (2000, 40, 64, "remount,size=2g /dev/shm"),
        (2000, 0, 64, "size=3g"),
    ],
)
def test_what_there_is_no_room_for(monkeypatch, needed, free, total, said):
    monkeypatch.delenv("OMPI_MCA_osc_sm_backing_directory", raising=False)
    told = shared_memory.lack(*(size * 2**20 for size in (needed, free, total)))
    assert said in told and bool(told) == bool(said)


def test_where_shared_memory_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("OMPI_MCA_osc_sm_backing_directory", str(tmp_path))
    assert f"but {tmp_path} has" in shared_memory.lack(2, 1, 1)
    free, total = shared_memory.measure()
    assert 0 <= free <= total
    # Where nothing can be known nothing is refused.
    monkeypatch.setenv("OMPI_MCA_osc_sm_backing_directory", str(tmp_path / "none"))
    assert not shared_memory.lack(2**50, *shared_memory.measure())
