"""Gradients of a run, measured on several ranks: the ranks change no digit."""

import json

import pytest

from tests.parallel.ranks import program, warm


@pytest.mark.mpi
def test_gradients_are_the_same_on_any_number_of_ranks(tmp_path):
    """Samples, pairs, copies and mixing; 3 ranks share neither 7 pairs nor 4 estimates evenly."""
    printed = [program("analyzing.py", ranks, tmp_path, run=warm) for ranks in (2, 1, 3)]
    found = [json.loads(text.splitlines()[-1]) for text in printed]
    for *_, messages in found:
        assert "has no checkpoint 5; there are: 6" in messages[0]
        assert "--pairs 500: 600 training samples hold only" in messages[1]
    two, one, three = (numbers[:-1] for numbers in found)
    assert one == two == three
    correlations, parts, _, counts = one
    states = correlations["moving"]["states"]
    assert [state["name"] for state in states] == ["initial", "6"]
    assert counts == [2 * 2 * 7] and correlations["moving"]["left_out"] == ["mixup"]
    assert states != correlations["ghost"]["states"]
    assert all(part["split"]["copies"] > 0 for part in parts)
