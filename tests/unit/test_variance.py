"""The split of a gradient's variance into that of samples and that of copies, in float64."""

import itertools

import numpy as np
import pytest

from ba_dist.rules.variance import MOST_COPIES, Split, mean_of, split

MEAN = np.array([1.0, -2.0, 0.5])


def drawn(numbers, groups, copies, between, within):
    """Gradients [groups, copies, 3] of known variances, each the sum over the three entries."""
    samples = numbers.normal(size=(groups, 1, 3)) * np.sqrt(between / 3)
    noise = numbers.normal(size=(groups, copies, 3)) * np.sqrt(within / 3)
    return MEAN + samples + noise


def test_it_is_without_bias_over_every_outcome():
    """Two possible values of each part, all combinations of them: the mean is exact."""
    groups, copies = 2, 2
    # A sample is +-(1, 0), a copy +-(0, 2) or 0 with other chances: not normal, not symmetric.
    samples = [(np.array([1.0, 0.0]), 0.5), (np.array([-1.0, 0.0]), 0.5)]
    noises = [(np.array([0.0, 2.0]), 0.25), (np.array([0.0, -2 / 3]), 0.75)]
    between = 1.0
    within = 0.25 * 4 + 0.75 * 4 / 9
    mean = np.array([0.5, 0.25])
    total, expected = 0.0, np.zeros(3)
    for a in itertools.product(samples, repeat=groups):
        for e in itertools.product(noises, repeat=groups * copies):
            chance = np.prod([c for _, c in a]) * np.prod([c for _, c in e])
            gradients = [
                [mean + a[j][0] + e[j * copies + m][0] for m in range(copies)]
                for j in range(groups)
            ]
            found = split(gradients)
            expected += chance * np.array([found.samples, found.copies, found.signal])
            total += chance
    assert total == pytest.approx(1)
    np.testing.assert_allclose(expected, [between, within, mean @ mean], rtol=1e-12)


@pytest.mark.parametrize("size", [1, 16])
def test_it_is_the_textbook_analysis_of_variance(size):
    """Against sums of squares about the means, of which every gradient is kept."""
    table = drawn(np.random.default_rng(0), 7, 5, 2.0, 3.0)
    means, mean = table.mean(1), table.mean((0, 1))
    within = ((table - means[:, None]) ** 2).sum() / (7 * 4)
    between = 5 * ((means - mean) ** 2).sum() / 6
    found = split(iter([iter(group) for group in table]), size)
    assert found.copies == pytest.approx(size * within, rel=1e-12)
    assert found.samples == pytest.approx(size * (between - within) / 5, rel=1e-12)
    assert found.signal == pytest.approx(mean @ mean - between / 35, rel=1e-12)


def test_it_foretells_the_variance_and_the_norm_of_a_mean_gradient():
    """Of mean gradients over B samples with M copies, which are drawn thousands of times."""
    numbers = np.random.default_rng(1)
    true = Split(samples=2.0, copies=6.0, signal=float(MEAN @ MEAN))
    found, _ = mean_of([split(drawn(numbers, 8, 4, 2.0, 6.0)) for _ in range(2000)])
    assert found.samples == pytest.approx(2, rel=0.05)
    assert found.copies == pytest.approx(6, rel=0.05)
    assert found.signal == pytest.approx(true.signal, rel=0.05)
    for batch, copies in ((4, 1), (4, 8), (16, 2)):
        means = np.array(
            [drawn(numbers, batch, copies, 2.0, 6.0).mean((0, 1)) for _ in range(4000)]
        )
        seen = ((means - MEAN) ** 2).sum(1).mean()
        assert true.of_mean(batch, copies) == pytest.approx(seen, rel=0.06)
        norm = np.sqrt((means**2).sum(1).mean())
        assert true.norm(batch, copies) == pytest.approx(norm, rel=0.02)


def test_one_part_alone():
    same = np.repeat(drawn(np.random.default_rng(2), 6, 1, 2.0, 0.0), 3, axis=1)
    found = split(same)
    assert found.copies == pytest.approx(0, abs=1e-12) and found.samples > 0
    assert found.copies_needed() == 1
    copies_only = drawn(np.random.default_rng(3), 4, 400, 0.0, 3.0)
    assert split(copies_only).copies == pytest.approx(3, rel=0.05)
    assert abs(split(copies_only).samples) < 0.05


@pytest.mark.parametrize(
    ("found", "share", "expected"),
    [
        (Split(1.0, 1.0, 0.0), 0.1, 9),
        (Split(1.0, 1.0, 0.0), 0.5, 1),
        (Split(3.0, 1.0, 0.0), 0.1, 3),
        (Split(2.9, 1.0, 0.0), 0.1, 4),
        (Split(1.0, 0.0, 0.0), 0.1, 1),
        (Split(1.0, -0.1, 0.0), 0.1, 1),
        (Split(0.0, 1.0, 0.0), 0.1, None),
        (Split(-0.1, 1.0, 0.0), 0.1, None),
        (Split(1.0, 1e9, 0.0), 0.1, None),
    ],
)
def test_the_copies_that_are_enough(found, share, expected):
    assert found.copies_needed(share) == expected


@pytest.mark.parametrize("seed", range(20))
def test_one_copy_fewer_would_not_be_enough(seed):
    ratio = np.random.default_rng(seed).uniform(0.01, 100)
    found = Split(1.0, ratio, 0.0)
    needed = found.copies_needed(0.1)
    assert needed <= MOST_COPIES and found.share_of_copies(needed) <= 0.1 + 1e-12
    assert needed == 1 or found.share_of_copies(needed - 1) > 0.1


def test_endless_copies_leave_the_samples():
    assert Split(2.0, 6.0, 1.0).of_mean(4, float("inf")) == 0.5


def test_estimates_are_averaged_with_their_error():
    parts = [Split(1.0, 4.0, 7.0), Split(3.0, 4.0, 9.0)]
    mean, error = mean_of(parts)
    assert mean == Split(2.0, 4.0, 8.0)
    assert error == Split(pytest.approx(1.0), 0.0, pytest.approx(1.0))
    assert np.isnan(mean_of(parts[:1])[1].samples)
