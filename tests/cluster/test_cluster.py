"""The cluster itself: it comes up, breaks as told, and leaves nothing behind."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.cluster import FOLDER, Cluster, ClusterError, until
from tests.parallel.ranks import ROOT

PROGRAMS = Path(__file__).parent / "programs"
OTHER = FOLDER.with_name("ba_dist_cluster_2")  # a second cluster beside the one of all tests
LAUNCHERS = {name: f"{ROOT}/launch/{name}.sh -- python" for name in ("srun", "mpirun")}
ON_FOUR_NODES = ("--nodes=4", "--ntasks-per-node=1", "--cpus-per-task=2", "--no-requeue")
# A try takes as long as Slurm needs to give a silent node up. The job's script, and with it the
# launcher, runs on node1, so that one is lost too.
LOST_NODES = ("node3", "node1")


def on_the_machine():
    """What a cluster could leave behind on this machine."""
    commands = ["ip -o link", "ip -o addr", "ip netns list", "cat /proc/mounts /etc/hosts"]
    seen = {line: subprocess.check_output(line.split(), text=True) for line in commands}
    seen["ip -o addr"] = "\n".join(  # leases tick
        line for line in seen["ip -o addr"].splitlines() if "valid_lft" not in line
    )
    return seen | {"namespaces": namespaces(), "run": sorted(Path("/run").iterdir())}


def namespaces():
    """Those that any process is in, but for processes that began or ended meanwhile."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/ns/*"):
        try:
            found.add(link.readlink())
        except OSError:
            continue
    return found


def test_nodes_are_idle_and_machines_of_their_own(cluster):
    assert cluster.node_states() == dict.fromkeys(cluster.nodes, "idle")
    assert "CPUTot=2" in cluster.run("scontrol", "show", "node", "-o", "node3").stdout
    for name in cluster.nodes:
        cluster.run("touch", f"/dev/shm/{name}", f"{cluster.plan.scratch}/{name}", on=name)
        seen = cluster.run("bash", "-c", "hostname; ls /dev/shm $TMPDIR", on=name).stdout.split()
        assert [word for word in seen if word.startswith("node")] == [name] * 3
        cluster.run("rm", f"/dev/shm/{name}", f"{cluster.plan.scratch}/{name}", on=name)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_mpi_and_horovod_on_four_nodes(cluster, launcher, tmp_path, promise):
    start = time.monotonic()
    job = cluster.submit(f"{LAUNCHERS[launcher]} {PROGRAMS}/hello.py", *ON_FOUR_NODES, cwd=tmp_path)
    assert cluster.wait(job, 120) == "COMPLETED", cluster.output(job)
    seconds = time.monotonic() - start
    lines = sorted(line for line in cluster.output(job).splitlines() if line.startswith("rank"))
    assert lines == [
        f"rank {rank} of 4 on node{rank + 1}: mpi 10, horovod 2.5" for rank in range(4)
    ]
    promise(0, f"MPI and Horovod agree on 4 nodes by {launcher}", 1, 1, seconds)


def lose_a_node(cluster, launcher, fault, name, folder):
    """Breaks a node under a job; the seconds until the job and every process of it are gone."""
    job = cluster.submit(
        f"{LAUNCHERS[launcher]} {PROGRAMS}/busy.py", *ON_FOUR_NODES, cwd=folder, name=fault
    )
    until(lambda: "round 3" in cluster.output(job), lambda: cluster.output(job), 60)
    start = time.monotonic()
    getattr(cluster, fault)(name)
    state = cluster.wait(job, 120)
    assert state in ("NODE_FAIL", "FAILED"), cluster.output(job)

    def ranks_left():
        ranks = cluster.find("busy.py")
        return [other for other in ranks if other != name]  # no word reaches it when it is cut off

    until(lambda: not ranks_left(), lambda: f"the end of ranks on {ranks_left()}", 60)
    return time.monotonic() - start


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("fault", ["kill_node", "cut_link"])
def test_the_job_ends_when_a_node_is_lost(cluster, launcher, fault, tmp_path, promise):
    seconds = []
    for name in LOST_NODES:
        seconds.append(lose_a_node(cluster, launcher, fault, name, tmp_path))
        cluster.mend()
    kept = sum(taken < 60 for taken in seconds)
    what = f"{fault} under {launcher}: every process gone in 60 s"
    promise(1, what, kept, len(seconds), seconds)


def test_a_node_comes_back(cluster):
    """Also to a node that has just talked to the one before, and remembers its hardware address."""
    ask = ("srun", "--nodelist=node2", "hostname")
    assert cluster.run(*ask, on="node1").stdout == "node2\n"
    cluster.kill_node("node2")
    assert "node2" not in cluster.processes()
    cluster.start_node("node2")
    cluster.wait_until_idle()
    start = time.monotonic()
    assert cluster.run(*ask, on="node1").stdout == "node2\n"
    assert time.monotonic() - start < 5  # it took 8 s, or failed


def test_disks_fill_up_on_one_node_or_on_all(cluster, tmp_path):
    for owner, others in (("node1", []), ("ctl", cluster.nodes)):
        folder = tmp_path / owner
        folder.mkdir()
        cluster.mount_disk(folder, "1m", on=owner)
        cluster.fill_disk(folder, on=owner)
        for name in [owner, *others]:
            full = cluster.run("cp", "/bin/sh", folder, on=name, check=False)
            assert "No space left" in full.stderr
        assert not list(folder.iterdir())  # this machine sees nothing of it
        cluster.free_disk(folder, on=owner)
        cluster.run("cp", "/bin/sh", folder, on=owner)
        cluster.unmount_disk(folder, on=owner)
    with pytest.raises(ClusterError, match="no disk of mount_disk"):
        cluster.fill_disk(tmp_path)


def test_a_link_has_the_bandwidth_that_was_asked_for(tmp_path):
    with Cluster(nodes=2, bandwidth="80mbit", folder=OTHER) as slow:
        job = slow.submit(
            f"{LAUNCHERS['srun']} {PROGRAMS}/bandwidth.py", "--nodes=2", "--ntasks=2", cwd=tmp_path
        )
        assert slow.wait(job, 60) == "COMPLETED", slow.output(job)
        assert 5 < float(slow.output(job).split()[0]) < 11  # of at most 10 megabytes a second


def test_bring_up_twice_is_harmless_and_teardown_leaves_nothing(tmp_path):
    before = on_the_machine()
    second = Cluster(nodes=2, folder=OTHER)
    assert second.up()
    processes = second.processes()
    assert not second.up()
    assert second.processes() == processes
    with pytest.raises(ClusterError, match="another cluster is up"):
        Cluster(nodes=3, folder=OTHER).up()
    job = second.submit("sleep 1000 & sleep 1000", "--nodes=2", cwd=tmp_path)
    second.wait_for_state(job, {"RUNNING"})
    second.down()
    second.down()
    after = on_the_machine()
    left = after.pop("namespaces") - before.pop("namespaces")
    assert after == before
    assert not OTHER.exists() and not second.machines()
    assert not left & namespaces()


def test_a_slurm_of_somebody_else_is_left_alone(tmp_path):
    alien = tmp_path / "munged"
    alien.write_text("#!/bin/sh\nread never\n")
    alien.chmod(0o755)
    with subprocess.Popen([alien], stdin=subprocess.PIPE) as process:
        with pytest.raises(ClusterError, match=f"munged runs as process {process.pid}"):
            Cluster(folder=tmp_path / "cluster").up()
        process.terminate()
    assert not (tmp_path / "cluster").exists()
