"""What `ba-dist doctor` says of ranks that did not find each other."""

import os
from types import SimpleNamespace

import pytest

from ba_dist import doctor
from ba_dist.cluster import home


def ranks(monkeypatch, started, joined, threads="1"):
    """The findings where Slurm started some ranks and MPI joined others."""
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", str(started))
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    world = SimpleNamespace(node=SimpleNamespace(size=1), world_size=joined, host="here", cores=1)
    return doctor._ranks(world)


def test_ranks_that_did_not_join(monkeypatch):
    (finding,) = ranks(monkeypatch, 8, 1)
    assert finding.text == "the launcher started 8, MPI joined 1" and "--mpi" in finding.advice


def test_ranks_that_did(monkeypatch):
    assert not [finding for finding in ranks(monkeypatch, 1, 1) if finding.advice]
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for given in ("3,1", "3"):  # of nested parallel regions, as OpenMP allows
        _, cores = ranks(monkeypatch, 1, 1, threads=given)
        assert cores.text.startswith("3 thread(s)") and cores.advice


@pytest.mark.parametrize(
    ("folder", "advice"),
    [("_INSTALLED", "see docs/install.md of the project"), ("_PACKAGE", "GPU=1 make setup")],
)
def test_advice_is_what_can_be_done_there(monkeypatch, folder, advice):
    monkeypatch.setattr(home, "HOME", getattr(home, folder))
    assert home.set_up("GPU=1") == advice
