"""The texts from which the test cluster is made, and the table of promises; no cluster needed."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.cluster import machines, texts
from tests.cluster.texts import Plan
from tests.promises import Promise, table, write

PLAN = Plan(Path("/run/somewhere"), nodes=2, cpus=3)


def test_every_node_is_in_the_files():
    assert PLAN.names == ["node1", "node2"]
    assert texts.hosts(PLAN).splitlines() == [
        "127.0.0.1 localhost", "10.111.0.1 ctl", "10.111.0.11 node1", "10.111.0.12 node2",
    ]  # fmt: skip
    configuration = texts.slurm_conf(PLAN)
    assert "NodeName=node2 NodeAddr=10.111.0.12 CPUs=3 " in configuration
    assert "node3" not in configuration


def test_the_cluster_writes_below_its_folder_only():
    for line in texts.slurm_conf(PLAN).splitlines():
        name, _, value = line.partition("=")
        if value.startswith("/"):
            assert value.startswith("/run/somewhere/"), name
    assert "/etc/munge" not in texts.controller_script(PLAN)


@pytest.mark.parametrize("bandwidth", [None, "100mbit"])
def test_scripts_are_bash_and_limit_links_only_when_asked(bandwidth):
    plan = Plan(Path("/run/x"), bandwidth=bandwidth)
    scripts = [
        texts.controller_script(plan),
        texts.node_script(plan, "node1"),
        texts.cable_script(plan, "node1", 7),
    ]
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert [("tc qdisc" in script) for script in scripts] == [False, bool(bandwidth)] + [
        bool(bandwidth)
    ]


@pytest.mark.parametrize(("nodes", "cpus"), [(0, 1), (201, 1), (1, 0)])
def test_impossible_clusters_are_refused(nodes, cpus):
    with pytest.raises(ValueError, match="asked for"):
        Plan(Path("/run/x"), nodes, cpus)


def test_a_process_outside_of_all_clusters_is_found():
    with subprocess.Popen(["sleep", "100"]) as process:
        assert process.pid in [it.pid for it in machines.outside({"sleep"})]
        process.kill()


def test_the_table_of_promises(tmp_path):
    promises = [
        Promise(3, "stopped", 20, 20, [1.0, 2.0, 9.0]),
        Promise(1, "killed", 19, 20),
        Promise(0, "started", 0, 0, [4.0]),
    ]
    lines = table(promises).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [" ".join(line.split()) for line in lines[2:]] == [
        "| – | started | measured | 4.0 |",
        "| 1 | killed | 19 of 20 BROKEN | |",
        "| 3 | stopped | 20 of 20 | 2.0, at most 9.0 |",
    ]
    write(promises, tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text() == table(promises) + "\n"
    write(promises, tmp_path / "table.json")
    assert [row["kept"] for row in json.loads((tmp_path / "table.json").read_text())] == [
        True, False, True,
    ]  # fmt: skip
