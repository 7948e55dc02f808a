"""What lanes give each other arrives whole, through shared memory and by messages."""

import pytest

from tests.parallel.ranks import program

TURNS = 40


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("memory", ["ROOM", "FULL"])
def test_pieces_of_any_size_arrive(ranks, memory):
    shared = int(program("exchange.py", ranks, memory, timeout=60).split()[-1])
    if memory == "FULL" or ranks == 1:
        assert shared == 0
    else:
        # Sizes grow all the time here; slots half as large again are outgrown now and then.
        assert TURNS // 2 < shared < TURNS
