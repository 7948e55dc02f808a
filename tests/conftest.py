"""For all tests: the quickstart's data, a quiet TensorFlow, counted promises, properties that do
not differ in CI."""

import os
import warnings

import pytest
from hypothesis import settings

from ba_dist.data.catalog.prepare import prepare
from ba_dist.errors import DataUnavailable
from ba_dist.runtime import quiet
from tests.promises import Collector

quiet()
settings.register_profile("busy", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("busy")

PROMISES = pytest.StashKey[Collector]()


def pytest_configure(config):
    config.stash[PROMISES] = collector = Collector()
    config.pluginmanager.register(collector)


@pytest.fixture(scope="session")
def promise(request):
    """Counts a promise for the table at the end: `promise(row, what, passed, total, seconds)`."""
    return request.config.stash[PROMISES].add


def pytest_collection_modifyitems(items):
    """The tests of several ranks, which use all cores, come last."""
    items.sort(key=lambda item: "tests/parallel/" in item.nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """`make test` divides the tests among processes; those of several ranks go to one of them."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "parallel" if nodeid.startswith("tests/parallel/") else nodeid

    config.option.loadscopereorder = False  # they are the largest scope, and would come first
    return Scheduling(config, log)


def pytest_sessionstart(session):
    """As `make run` does it: training installs nothing. Tests that need the data fail without."""
    # Once, not in every process of pytest-xdist: two could not install at a time.
    if hasattr(session.config, "workerinput") or session.config.option.collectonly:
        return
    try:
        prepare("fashion_mnist", install=True)
    except DataUnavailable as error:
        warnings.warn(f"{error}", stacklevel=1)
