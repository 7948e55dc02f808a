"""The table of promises is one, however many processes have counted."""

from types import SimpleNamespace

import pytest

from tests.promises import Collector, Promise


def test_what_other_processes_have_counted_is_added():
    whole = Collector()
    for tries in (2, 3):
        worker = Collector()
        worker.add(1, "it holds", tries, tries, [float(tries)])
        with pytest.raises(AssertionError, match="it does not: kept 0 times of 1"):
            worker.add(2, "it does not", 0, 1)
        config = SimpleNamespace(workeroutput={})
        worker.pytest_sessionfinish(SimpleNamespace(config=config))
        whole.pytest_testnodedown(config)
    whole.pytest_testnodedown(SimpleNamespace())  # one that has crashed
    assert whole.promises == [
        Promise(1, "it holds", 5, 5, [2.0, 3.0]),
        Promise(2, "it does not", 0, 2),
    ]
    whole.pytest_sessionfinish(SimpleNamespace(config=SimpleNamespace()))
