"""Kneser-Ney by counting: against the formula by hand on a few words."""

import math
import sys

import pytest

from .test_benchmarks import ROOT

sys.path.append(str(ROOT / "benchmarks"))
from ngram import KneserNey, perplexity, unigram_perplexity

A, B, C, D, E = range(5)
TEXT = [A, B, A, B, A, C, A, D, B, A]


def test_bigrams_by_hand():
    """Counted once are the pairs ac, ca, ad and db, twice ab, three times ba."""
    model = KneserNey(TEXT, 5, 2)
    discount = 4 / (4 + 2 * 1)
    # Different words before: a has b and c; b has a and d; c and d have a: 6 pairs.
    lower = 2 / (2 + 2 * 2)
    unigram = {w: (n - lower + lower * 4 / 5) / 6 for w, n in ((A, 2), (B, 2), (C, 1), (D, 1))}
    assert model.probability(E, (E,)) == pytest.approx(lower * 4 / 5 / 6)
    assert model.probability(B, (E,)) == pytest.approx(unigram[B])
    # After a: b twice, c and d once.
    expected = (2 - discount + discount * 3 * unigram[B]) / 4
    assert model.probability(B, (A,)) == pytest.approx(expected)
    assert model.probability(A, (A,)) == pytest.approx(discount * 3 * unigram[A] / 4)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_sum_to_one(order):
    model = KneserNey(TEXT, 5, order)
    for history in ((A, A, A, A), (C, A, D, B), (B, A, B, A), (E, E, E, E)):
        total = math.fsum(model.probability(w, history) for w in range(5))
        assert total == pytest.approx(1, abs=1e-12)
        assert all(model.probability(w, history) > 0 for w in range(5))


def test_perplexities():
    model = KneserNey(TEXT, 5, 2)
    logs = [math.log(model.probability(w, (h,))) for h, w in ((E, A), (A, B), (B, C))]
    assert perplexity(model, [A, B, C], end=E) == pytest.approx(math.exp(-sum(logs) / 3))
    assert unigram_perplexity([A, A, B], [A, C], 3) == pytest.approx((3 / 6 * 1 / 6) ** -0.5)
