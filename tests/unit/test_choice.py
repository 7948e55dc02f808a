"""Which way of exchanging is taken, from what its turns took."""

import pytest

from ba_dist.data.group.choice import WAYS, least


@pytest.mark.parametrize("faster", WAYS)
def test_a_slow_first_turn_decides_nothing(faster):
    """Threads and connections begin with it, whichever way is first."""
    calls = []

    def turn(way):
        calls.append(way)
        return (10 if len(calls) == 1 else 1) * (1.0 if way == faster else 1.3)

    taken = least(turn)
    assert min(taken, key=taken.get) == faster
    assert calls == [*WAYS] * 4  # they are near each other


def test_a_clear_difference_ends_it_after_two_turns():
    calls = []

    def turn(way):
        calls.append(way)
        return {"encoded": 1.0, "decoded": 30.0}[way]

    assert least(turn) == {"encoded": 1.0, "decoded": 30.0}
    assert calls == [*WAYS] * 2
