"""docs/planning.md has the numbers that benchmarks/prediction.py computes."""

import re

import pytest

from .test_benchmarks import ROOT

PAGE = (ROOT / "docs" / "planning.md").read_text()


@pytest.fixture
def prediction(monkeypatch):
    """The program."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import prediction

    return prediction


def row(begins):
    """The cells behind the first one of the row that begins so."""
    (found,) = re.findall(rf"^\| {re.escape(begins)}[^|]* \|(.*)\|$", PAGE, re.M)
    return [cell.strip() for cell in found.split("|")]


def test_table_5(prediction):
    line = prediction.fit_table_5()
    paper = prediction.paper_machine().step_times["resnet50"]["fp32"]
    assert (line.fixed, line.instance) == pytest.approx((paper.fixed, paper.instance), rel=1e-3)
    found = [f"{size / paper.seconds(size):.1f}" for size in prediction.TABLE_5]
    assert row("a + c·n") == found
    assert row("paper") == [f"{rate}" for rate in prediction.TABLE_5.values()]


def test_figure_5(prediction):
    rates = prediction.of_figure_5(prediction.paper_machine())
    for (copies, nodes, rate, spread), found in zip(prediction.FIGURE_5, rates, strict=True):
        (cell,) = row(f"{copies} | {nodes} | {rate} ± {spread}")
        assert cell.split()[0] == f"{found:.2f}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("the filesystem, read by every rank", "the filesystem's, read by every rank"),
        ("bandwidth of the allreduce", "bandwidth of the allreduce"),
        ("uneven ranks (each step for itself)", "uneven ranks"),
    ],
)
def test_other_causes_of_the_same_rate(prediction, name, said):
    """One that the paper's other two rates rule out."""
    change, low, high, io = prediction.CAUSES[name]
    rates = prediction.of_figure_5(prediction.calibrated(change, low, high, io), io)
    assert rates[0] == pytest.approx(1.43, abs=0.005)
    assert row(said) == [f"{rates[1]:.2f}", f"{rates[2]:.2f}", "no"]
    assert abs(rates[1] - 1.47) > prediction.TOLERANCE
