"""What `ba-dist analyze --output` draws: colours of the project, markers, units."""

import pytest
from matplotlib.colors import to_hex

from ba_dist.analysis.correlation import DIFFERENT, SAME, Correlations, Row
from ba_dist.analysis.states import State
from ba_dist.analysis.variance import Measured, Variances
from ba_dist.reports import gradients, style
from ba_dist.rules.correlation import Spread
from ba_dist.rules.variance import Split

STATES = [State("initial", 0, 0.0, None), State("300", 300, 5.0, 0.5), State("600", 600, 10.0, 0.7)]
EVERY = [(style.color_of(i), style.marker_of(i)) for i in range(7)]


@pytest.fixture
def drawn(figures_of):
    return figures_of(gradients)


def looks(lines):
    return [(to_hex(line.get_color()), line.get_marker()) for line in lines]


def test_each_kind_of_pair_has_a_colour_and_a_marker(tmp_path, drawn):
    views = [("crop",), ("flip",), ("crop", "flip"), (), ()]
    names = ["(x, T(x)) crop", "(x, T(x)) flip", "(x, T(x)) crop, flip", SAME, DIFFERENT]
    medians = (0.9, 0.7, 0.5, 0.3, 0.1)
    rows = tuple(
        Row(name, view, Spread(median, 0.1, 0))
        for name, view, median in zip(names, views, medians, strict=True)
    )
    found = Correlations(100, 0, "moving", (), tuple((state, rows) for state in STATES))
    gradients.plot_correlations(found, "run", tmp_path / "a.png", "mark")
    (axis,) = drawn[0].axes
    points = [container.lines[0] for container in axis.containers]
    assert looks(points) == EVERY[:5]
    hollow = [line.get_markerfacecolor() == "white" for line in points]
    assert hollow == [False, False, False, True, True]  # those of two samples
    assert list(points[1].get_ydata()) == [0.7] * 3 and "correlation" in axis.get_ylabel()


def test_pairs_that_have_no_correlation_are_told():
    def table(*undefined):
        names = ("(x, T(x)) crop", SAME, DIFFERENT)
        rows = tuple(Row(n, (), Spread(0.5, 0.1, u)) for n, u in zip(names, undefined, strict=True))
        return Correlations(9, 0, "moving", (), ((STATES[0], rows),)).table()

    assert "left out" not in table(0, 0, 0)
    assert table(2, 0, 1).endswith(
        "\nleft out: 3 pairs, of which a gradient was zero or not finite"
    )


def test_each_state_has_a_colour_and_a_marker_and_nothing_is_cut_off(tmp_path, drawn):
    splits = [Split(2.0 / (i + 1), 1.5 * (i + 1), 0.5) for i in range(3)]
    measured = tuple(Measured(s, found, found) for s, found in zip(STATES, splits, strict=True))
    found = Variances(64, 8, 8, 8, 4, 8, 0, measured)
    gradients.plot_variances(found, "run", tmp_path / "a.png", "mark")
    left, right = drawn[0].axes
    assert looks(line for line in left.get_lines() if line.get_linestyle() == "-") == EVERY[:3]
    assert looks(right.get_lines()) == EVERY[:3]
    low, high = right.get_ylim()
    values = [value for line in right.get_lines() for value in line.get_ydata()]
    assert low == 0 and 1.05 * max(values) < high < 1.2 * max(values)
    assert [axis.get_xlabel() for axis in (left, right)] == ["M, copies of each sample"] * 2
    assert right.get_ylabel().startswith("L2 norm")
