"""A pipeline that is left early, at any batch: threads end before their memory goes."""

import re

import pytest

from tests.parallel.ranks import program

TRIES = {1: 10, 2: 50, 4: 20}
KINDS = {
    "script": "a script's pipeline left early: no hang, no crash",
    "training": "a run's pipeline left early: its threads have ended when its memory goes",
}


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", TRIES)
def test_a_pipeline_is_left_at_any_batch(ranks, promise):
    tries = TRIES[ranks]
    output = program("leaving.py", ranks, tries)
    for kind, what in KINDS.items():
        good = [int(n) for n in re.findall(rf"rank \d+, {kind}: (\d+) of {tries}", output)]
        assert len(good) == ranks
        promise(18, what, min(good), tries)
