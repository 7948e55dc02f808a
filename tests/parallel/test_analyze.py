"""Gradients of a run, measured on several ranks: the ranks change no digit."""

import json

import pytest

from tests.parallel.ranks import program, warm


@pytest.mark.mpi
def test_gradients_are_the_same_on_any_number_of_ranks(tmp_path):
    """Samples, pairs, copies and mixing; 3 ranks share neither 7 pairs nor 5 estimates evenly."""
    printed = [program("analyzing.py", ranks, tmp_path, run=warm) for ranks in (2, 1, 3)]
    two, one, three = (json.loads(text.splitlines()[-1]) for text in printed)
    *one, messages = one
    *two, on_two = two
    *three, on_three = three
    assert one == two == three
    # One rank alone finds the mistake; where there are others, the message says which one.
    assert [[line.removeprefix("rank 0: ") for line in on] for on in (on_two, on_three)] == [
        messages,
        messages,
    ]
    found, parts, _, counts = one
    states = found["moving"]["states"]
    assert [state["name"] for state in states] == ["initial", "6"]
    assert counts == [2 * 2 * 7] and found["moving"]["left_out"] == ["mixup"]
    assert found["moving"]["states"] != found["ghost"]["states"]
    assert all(part["split"]["copies"] > 0 for part in parts)
    assert "has no checkpoint 5; there are: 6" in messages[0]
    assert "--pairs 500: 600 training samples hold only" in messages[1]
