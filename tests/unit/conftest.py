"""Fixtures that several files of tests share."""

import os
import sys

import pytest

# TensorFlow is imported where it is needed: many of these tests need none.


@pytest.fixture
def ba_dist(monkeypatch, capsys):
    """Runs the command in this process; returns (exit status, output, errors)."""
    from ba_dist.cli import commands

    for name in [n for n in os.environ if n.startswith(("OMPI_", "PMI_", "SLURM_"))]:
        monkeypatch.delenv(name)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ba-dist", *map(str, words)])
        try:
            commands.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def comm():
    """The world of this process alone."""
    from ba_dist.comm import start

    return start()


@pytest.fixture
def fp64():
    """Networks are built in float64."""
    from ba_dist.models.precision import set_precision

    set_precision("fp64")
    yield
    set_precision("fp32")


@pytest.fixture
def single_precision():
    """Networks that are built after the test are in float32 again."""
    from ba_dist.models.precision import set_precision

    yield
    set_precision("fp32")


@pytest.fixture
def figures_of(monkeypatch):
    """Module → the figures that it writes from now on; they stay open to be looked at."""
    from ba_dist.reports.plots import plt

    def watch(module):
        figures, save = [], module.save

        def keep(figure, output, mark):
            figures.append(figure)
            return save(figure, output, mark)

        monkeypatch.setattr(module, "save", keep)
        return figures

    yield watch
    plt.close("all")
