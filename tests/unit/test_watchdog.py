"""Whom a stall is put down to. The stalls themselves are in tests/parallel/test_faults.py."""

import pytest

from ba_dist.comm import start
from ba_dist.health.watchdog import ACTIVITIES, Sign, Watchdog, missing

HOSTS = ["a", "a", "b", "b"]
STEP, INPUT = ACTIVITIES.index("in the step"), ACTIVITIES.index("waiting for input")


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({1: Sign(7, STEP, 60.0), 2: Sign(7, STEP, 60.0)}, "Missing: rank 3 on b: no answer"),
        ({1: Sign(7, STEP, 60.0)}, "Missing: rank 2 on b, rank 3 on b: no answer"),
        (
            {1: Sign(7, STEP, 60.0), 2: Sign(7, INPUT, 61.0), 3: Sign(7, STEP, 60.0)},
            "rank 2 on b is waiting for input, its last sign 61 s ago.",
        ),
        (dict.fromkeys((1, 2, 3), Sign(7, STEP, 60.0)), "All ranks answer, in the step"),
    ],
)
def test_who_is_missing(answers, words):
    assert missing(answers, 0, STEP, hosts=HOSTS).startswith(words)


def test_who_still_works_is_waited_for():
    answers = {1: Sign(7, STEP, 58.0), 2: Sign(7, STEP, 1.0), 3: Sign(7, STEP, 60.0)}
    text = missing(answers, 0, STEP, hosts=HOSTS, age=60.0)
    assert text == "rank 2 on b is in the step, its last sign 1 s ago."


def test_the_list_of_thousands_is_short():
    assert len(missing({}, 0, STEP, hosts=["node"] * 5704)) < 300


def test_progress_is_no_stall_and_building_the_first_step_neither(capfd):
    watchdog = Watchdog(start(), warning=0.2, timeout=0)
    try:
        watchdog.beat("starting", 0)
        assert not watchdog._ended.wait(0.6)
        for step in range(6):
            watchdog.beat("in the step", step)
            assert not watchdog._ended.wait(0.1)
        assert capfd.readouterr().err == ""
        assert not watchdog._ended.wait(0.6)
        assert capfd.readouterr().err.count("warning: no step for") == 1
    finally:
        watchdog.close()


def test_slow_steps_are_no_stall(capfd):
    watchdog = Watchdog(start(), warning=0.2, timeout=0)
    try:
        watchdog.beat("starting", 0)
        assert not watchdog._ended.wait(1.0)
        watchdog.beat("in the step", 1)
        assert not watchdog._ended.wait(1.0)
        assert capfd.readouterr().err == ""
    finally:
        watchdog.close()
