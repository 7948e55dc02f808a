"""Which way of exchanging is taken, from what its turns took."""

import pytest

from ba_dist.data.group.choice import WAYS, compared


@pytest.mark.parametrize("faster", WAYS)
def test_a_slow_first_turn_decides_nothing(faster):
    """Threads and connections begin with it, whichever way is first."""
    calls = []

    def turn(way):
        calls.append(way)
        return (10 if len(calls) == 1 else 1) * (1.0 if way == faster else 1.3)

    taken = compared(turn)
    assert min(taken, key=taken.get) == faster
    assert calls == [*WAYS] * 4  # they are near each other


def test_a_clear_difference_ends_it_after_two_turns():
    calls = []

    def turn(way):
        calls.append(way)
        return {"encoded": 1.0, "decoded": 30.0}[way]

    assert compared(turn) == {"encoded": 1.0, "decoded": 30.0}
    assert calls == [*WAYS] * 2


def test_one_lucky_turn_does_not_decide():
    decoded = iter([1.3, 1.2, 0.9, 1.2])
    taken = compared(lambda way: 1.0 if way == "encoded" else next(decoded))
    assert taken == {"encoded": 1.0, "decoded": 1.2}
