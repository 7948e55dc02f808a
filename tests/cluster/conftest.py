"""The cluster that all tests of this folder share, whole again before each of them."""

import pytest

from tests.cluster.cluster import Cluster


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/cluster/" in item.nodeid:
            item.add_marker("slurm")


@pytest.fixture(scope="session")
def running_cluster():
    """Four nodes; they go down again if it was this session that brought them up."""
    cluster = Cluster()
    fresh = cluster.up()
    yield cluster
    if fresh:
        cluster.down()


@pytest.fixture
def cluster(running_cluster):
    """Four idle nodes, also after a test that broke some or left jobs behind."""
    yield running_cluster
    running_cluster.mend()
