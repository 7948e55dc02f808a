"""The disk of the run directory fills up in the middle of a training."""

import json

from tests.cluster.cluster import until
from tests.parallel.jobs import small
from tests.parallel.ranks import ROOT

PYTHON = ROOT / ".venv" / "bin" / "python"
ON_TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--no-requeue")


def test_a_full_disk_loses_no_checkpoint(cluster, tmp_path, promise):
    run = tmp_path / "disk" / "run"
    run.parent.mkdir()
    cluster.mount_disk(run.parent, "8m")
    script = f"{ROOT}/launch/srun.sh -- " + " ".join(small(run, "--checkpoint-every=2", "--trace"))
    job = cluster.submit(f"{script} --steps=5000", *ON_TWO_NODES, cwd=tmp_path)

    def newest_step():
        listed = cluster.run("ls", run / "checkpoints", check=False).stdout.split()
        return max((int(name[5:13]) for name in listed if name.endswith("safetensors")), default=0)

    until(lambda: newest_step() >= 4, lambda: cluster.output(job), 120)
    cluster.fill_disk(run.parent)
    state = cluster.wait(job, 120)
    output = cluster.output(job)
    saved = newest_step()
    print(state, output, sep="\n")  # pytest shows it when the promise is broken
    clean = state == "FAILED" and "No space left on device" in output and "Traceback" not in output
    promise(10, "the disk fills up in a training: one message, no trace", int(clean), 1)
    cluster.free_disk(run.parent)
    job = cluster.submit(f"{script} --steps={saved + 6}", *ON_TWO_NODES, cwd=tmp_path)
    state = cluster.wait(job, 120)
    output = cluster.output(job)
    audit = cluster.run(PYTHON, "-m", "ba_dist", "audit", run, check=False).stdout
    summary = json.loads(cluster.run("cat", run / "summary.json").stdout)
    print(state, output, audit, summary, sep="\n")
    good = state == "COMPLETED" and f"going on at step {saved}" in output
    good &= f"clean: {saved + 6} steps" in audit and summary["steps"] == saved + 6
    promise(10, "room again: it goes on from the newest checkpoint, audit clean", int(good), 1)
    cluster.unmount_disk(run.parent)
