"""What `ba-dist doctor` says of ranks that did not find each other."""

from types import SimpleNamespace

import pytest

from ba_dist import doctor
from ba_dist.cluster import home


def ranks(monkeypatch, started, joined):
    """The findings where Slurm started some ranks and MPI joined others."""
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", str(started))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    world = SimpleNamespace(node=SimpleNamespace(size=1), world_size=joined, host="here")
    return doctor._ranks(world)


def test_ranks_that_did_not_join(monkeypatch):
    (finding,) = ranks(monkeypatch, 8, 1)
    assert finding.text == "the launcher started 8, MPI joined 1" and "--mpi" in finding.advice


def test_ranks_that_did(monkeypatch):
    assert not [finding for finding in ranks(monkeypatch, 1, 1) if finding.advice]


@pytest.mark.parametrize(
    ("folder", "advice"),
    [("_INSTALLED", "see docs/install.md of the project"), ("_PACKAGE", "GPU=1 make setup")],
)
def test_advice_is_what_can_be_done_there(monkeypatch, folder, advice):
    monkeypatch.setattr(home, "HOME", getattr(home, folder))
    assert home.set_up("GPU=1") == advice
