"""Intervals of accuracies and of their difference, and the error that is removed."""

import math

import numpy as np
import pytest

from ba_dist.rules.comparison import (
    Comparison,
    compare,
    comparison_table,
    difference_interval,
    error_removed,
    error_removed_interval,
    wilson,
)


@pytest.mark.parametrize(
    ("right", "samples", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_that_of_the_literature(right, samples, low, high):
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I."""
    assert wilson(right, samples) == pytest.approx((low, high), abs=6e-5)
    mirrored = wilson(samples - right, samples)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=6e-5)


def test_counts():
    first = np.array([1, 1, 1, 0, 0, 0, 0], bool)
    second = np.array([1, 0, 0, 1, 0, 0, 0], bool)
    found = compare(first, second)
    assert found == Comparison(right=1, gained=1, lost=2, wrong=3)
    row = found.as_dict()
    assert (row["single"], row["tta"]) == (3 / 7, 2 / 7)
    assert (row["gained"], row["lost"], row["difference"]) == (1, 2, -1 / 7)
    assert row["error_removed"] == pytest.approx((4 / 7 - 5 / 7) / (4 / 7))


def test_the_share_of_the_error_is_that_of_the_paper():
    """Table 4, ResNet-44: 95.03 % of one plain image, 96.00 % of ten: 19.5 % of the error."""
    found = Comparison(right=9403, gained=197, lost=100, wrong=300)
    assert error_removed(found) == pytest.approx(0.195, abs=5e-4)


@pytest.mark.parametrize("chances", [(0.7, 0.08, 0.05, 0.17), (0.9, 0.02, 0.02, 0.06)])
def test_intervals_hold_the_truth_19_times_in_20(chances):
    right, gained, lost, wrong = chances
    drawn = np.random.default_rng(0).multinomial(1000, chances, 4000)
    found = [Comparison(*map(int, row)) for row in drawn]
    truths = {
        difference_interval: gained - lost,
        error_removed_interval: (gained - lost) / (gained + wrong),
        lambda one: wilson(one.right + one.lost, one.samples): right + lost,
    }
    for interval, truth in truths.items():
        share = np.mean([low <= truth <= high for low, high in map(interval, found)])
        assert 0.935 < share < 0.965


def test_nothing_gained_or_lost_is_no_certainty():
    few, many = Comparison(90, 0, 0, 10), Comparison(9000, 0, 0, 1000)
    for interval in (difference_interval, error_removed_interval):
        (low, high), narrow = interval(few), interval(many)
        assert low < narrow[0] < 0 < narrow[1] < high


@pytest.mark.parametrize(
    "counts", [(1, 0, 0, 0), (0, 0, 0, 1), (0, 1, 0, 0), (0, 0, 1, 0), (5, 1, 0, 0)]
)
def test_few_samples_and_no_errors(counts):
    """Every interval holds its number and stays in its range; what has no meaning is None."""
    found = Comparison(*counts)
    row = found.as_dict()
    ranges = {"single": (0, 1), "tta": (0, 1), "difference": (-1, 1)}
    if row["error_removed"] is not None:
        ranges["error_removed"] = (-math.inf, 1)
    for name, (low, high) in ranges.items():
        a, b = row[f"{name}_interval"]
        assert low <= a <= row[name] <= b <= high and math.isfinite(a + b)
    assert (row["error_removed"] is None) == (found.gained + found.wrong == 0)
    assert "nan" not in comparison_table({"val_top1": found})


def test_the_table_has_a_line_for_each_accuracy():
    found = {"val_top1": Comparison(800, 60, 40, 100), "val_top5": Comparison(1000, 0, 0, 0)}
    lines = comparison_table(found).splitlines()
    assert len(lines) == 3 and "84.00% (81.60%, 86.14%)" in lines[1]
    assert "86.00%" in lines[1] and "+2.00% (+0.03%, +3.96%)" in lines[1] and "12.50%" in lines[1]
    assert lines[2].endswith(" -")
