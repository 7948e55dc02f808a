"""A node whose link is much slower than the others' is named."""

from tests.cluster.texts import port
from tests.parallel.jobs import metrics, small
from tests.parallel.ranks import ROOT

ON_FOUR_NODES = ("--nodes=4", "--ntasks-per-node=1", "--cpus-per-task=2", "--no-requeue")
SLOW = ("tbf", "rate", "16mbit", "burst", "32kb", "latency", "400ms")


def test_the_node_with_the_slow_link_is_named(cluster, tmp_path, promise):
    run = tmp_path / "run"
    words = " ".join(small(run, "--steps=60", "--multiplicity=4"))
    ends = [("ctl", port("node3")), ("node3", "eth0")]
    for owner, device in ends:
        cluster.run("tc", "qdisc", "add", "dev", device, "root", *SLOW, on=owner)
    try:
        script = f"{ROOT}/launch/srun.sh -- {words}"
        job = cluster.submit(script, *ON_FOUR_NODES, cwd=tmp_path)
        state = cluster.wait(job, 200)
    finally:
        for owner, device in ends:
            cluster.run("tc", "qdisc", "del", "dev", device, "root", on=owner)
    output = cluster.output(job)
    named = [(e["host"], e["phase"]) for e in metrics(run) if e["event"] == "straggler"]
    steps = [e["step"] for e in metrics(run) if e["event"] == "straggler"]
    good = state == "COMPLETED" and named == [("node3", "allreduce")] and steps[0] <= 50
    good &= "rank 2 on node3 is " in output and " in allreduce " in output
    assert good, output
    promise(13, "a node with a slow link: named within 50 steps, nothing aborted", 1, 1)
