"""Commands on the test cluster (root on Debian), for benchmarks of several nodes and slow links."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
from harness import ROOT

from ba_dist.errors import UserError

sys.path.insert(0, str(ROOT))  # the cluster is among the tests

FREE = "free"  # links as fast as the machine
bandwidths_option = click.option(
    "--bandwidths",
    default="free,1gbit,100mbit",
    show_default=True,
    help="Of the links, as tc writes them; free is without a limit.",
)
_LONGEST_JOB = 900.0


def cluster(nodes: int, bandwidth: str) -> AbstractContextManager[Any]:
    """So many nodes, whose links have this bandwidth, as `tc` writes it, or FREE."""
    from tests.cluster.cluster import Cluster

    return Cluster(nodes=nodes, bandwidth=None if bandwidth == FREE else bandwidth)


def run(up: Any, folder: Path, name: str, words: str, ranks_per_node: int = 1) -> None:
    """Runs WORDS of `launch/srun.sh` on all nodes of a cluster that is up.

    Raises:
        UserError: with what it printed, where it failed.
    """
    script = f"cd {ROOT} && PYTHONPATH={ROOT} launch/srun.sh -- {words}"
    options = (
        f"--nodes={len(up.nodes)}",
        f"--ntasks-per-node={ranks_per_node}",
        f"--cpus-per-task={2 // ranks_per_node}",
    )
    number = up.submit(script, *options, cwd=folder, name=name)
    if up.wait(number, _LONGEST_JOB) != "COMPLETED":
        raise UserError(f"{name} failed on the cluster:\n{up.output(number)[-2000:]}")
