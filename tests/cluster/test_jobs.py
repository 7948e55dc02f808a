"""The job scripts of slurm/ and `ba-dist submit`, with a real sbatch on four nodes."""

import json
import re

import numpy as np
import pytest

from ba_dist.run import checkpoint
from tests.cluster.cluster import until
from tests.parallel.ranks import ROOT

PYTHON = ROOT / ".venv" / "bin" / "python"
IMAGES = ("--dataset=synthetic", "--val-samples=64")
SHORT = ("quickstart", *IMAGES, "--image-size=8", "--multiplicity=4", "--steps=3")

# What a person would have to change in each script for nodes of two processors; cpu.sbatch is that
# of all other tests here.
SIZES = {
    "gpu": ["--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=1"],
    "cray-xc": ["--nodes=2", "--cpus-per-task=2"],
    "cray-ex": ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2"],
    "lumi": ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--partition=batch"],
}
# The check before training takes as long as the start of training; two of them will do.
CHECKED = ("gpu", "cray-ex")

# A run of more than half a minute: Slurm looks for jobs whose time is nearly over twice a minute.
STEPS, EPOCH = 200, 170
LONG = ("quickstart", *IMAGES, "--image-size=16", "--multiplicity=4", f"--steps={STEPS}")
LONG += (f"--train-samples={64 * EPOCH}", "--log-every=1", "--trace")
ON_FOUR_NODES = ("--nodes=4", "--ntasks-per-node=1", "--cpus-per-task=2")
UNCHECKED = {"BA_DIST_DOCTOR": "0"}


def sbatch(cluster, folder, site, options, flags, env=None):
    """Submits the script of a site as it is.

    Returns:
        The job's number. Its run directory is `runs/quickstart-NUMBER` in the folder.
    """
    script = ROOT / "slurm" / f"{site}.sbatch"
    done = cluster.run("sbatch", "--parsable", *options, script, *flags, cwd=folder, env=env)
    return int(done.stdout)


def run_dir(folder, job):
    return folder / "runs" / f"quickstart-{job}"


def steps_of(run):
    """The steps in metrics.jsonl, as they stand there, but for a line that is being written."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [entry["step"] for entry in entries if entry["event"] == "step"]


def wait_for_step(cluster, job, run, step):
    def there():
        assert cluster.state(job) in ("PENDING", "CONFIGURING", "RUNNING"), cluster.output(job)
        return step in steps_of(run)

    until(there, lambda: f"step {step}\n{cluster.output(job)}", 200)


def wait_for_requeue(cluster, job, restarts):
    """Waits until a job queues again for the n-th time; starts it when its old steps are gone.

    Slurm holds it for two minutes, which is long enough for them: their numbers are used again, and
    a rank cannot be started where the socket of the old step still is.
    """

    def requeued():
        facts = cluster.job(job)
        return facts["JobState"] == "PENDING" and facts["Restarts"] == f"{restarts}"

    until(requeued, lambda: f"a requeue; {cluster.job(job)}\n{cluster.output(job)}", 90)
    until(lambda: not cluster.find(f"slurmstepd: [{job}."), "the end of the job's old steps", 60)
    cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")


def final_arrays(run):
    found = checkpoint.newest_good(checkpoint.folder_of(run))
    assert found.step == STEPS
    return found.arrays


# --- every site ---------------------------------------------------------------------------------


def site_file(site, folder):
    """The lines of a script's function `site`, without the option that only containers know."""
    script = (ROOT / "slurm" / f"{site}.sbatch").read_text()
    lines = re.search(r"^site\(\) \{\n(.*?)^\}", script, re.MULTILINE | re.DOTALL)[1]
    path = folder / "site.sh"
    path.write_text(re.sub(r'--environment="[^"]*"\s*', "", lines))
    return path


@pytest.mark.parametrize("site", SIZES)
def test_the_script_of_every_site_trains(cluster, site, tmp_path):
    env = {} if site in CHECKED else dict(UNCHECKED)
    if site == "cray-ex":
        env["BA_DIST_SITE_FILE"] = str(site_file(site, tmp_path))
    job = sbatch(cluster, tmp_path, site, SIZES[site], SHORT, env)
    state = cluster.wait(job)
    output = cluster.output(job)
    assert state == "COMPLETED", output
    summary = json.loads((run_dir(tmp_path, job) / "summary.json").read_text())
    assert (summary["world_size"], summary["steps"]) == (4 if site == "gpu" else 2, 3)
    assert ("ok       MPI" in output) == (site in CHECKED)
    assert f"finished; see {run_dir(tmp_path, job)}" in output


def test_submit_submits(cluster, tmp_path):
    run = tmp_path / "my run"
    nodes = ["--site=cpu", "--nodes=4", "--ranks-per-node=1", "--partition=batch", "--time=5"]
    words = [*SHORT[:1], *nodes, *SHORT[1:], f"--run-dir={run}"]
    said = cluster.run(PYTHON, "-m", "ba_dist", "submit", *words, cwd=tmp_path, env=UNCHECKED)
    job = int(re.match(r"submitted job (\d+): quickstart, 4 nodes x 1 ranks", said.stdout)[1])
    assert f"squeue -j {job}\n" in said.stdout and f"scancel {job}" in said.stdout
    state = cluster.wait(job)
    assert state == "COMPLETED", cluster.output(job)
    log = said.stdout.partition("tail -F ")[2].splitlines()[0]
    assert "finished; see" in (tmp_path / log).read_text()
    assert json.loads((run / "summary.json").read_text())["world_size"] == 4
    assert sorted(json.loads((run / "config.json").read_text())["hosts"]) == cluster.nodes


def test_a_sweep_is_a_job_array(cluster, tmp_path):
    """Two runs, on two nodes each, at the same time; then the same command has nothing to do."""
    folder = tmp_path / "my sweep"
    nodes = ["--slurm=cpu", "--nodes=2", "--ranks-per-node=1", "--partition=batch", "--time=5"]
    flags = [*SHORT[:-1], "--steps=3", "--seeds=0,1", f"--output={folder}"]
    words = [PYTHON, "-m", "ba_dist", "sweep", *flags, *nodes]
    said = cluster.run(*words, cwd=tmp_path, env=UNCHECKED).stdout
    assert re.match(r"submitted job array \d+: 2 of 2 runs", said)
    runs = [folder / f"seed={seed}" for seed in (0, 1)]

    def logs():
        # Where they go for a folder whose name Slurm could not read.
        return "".join(path.read_text() for path in tmp_path.glob("slurm-*_*.out"))

    until(lambda: all((run / "summary.json").exists() for run in runs), logs, 300)
    cluster.wait_until_idle()
    assert logs().count("finished; see") == 2
    hosts = [json.loads((run / "config.json").read_text())["hosts"] for run in runs]
    assert [len(set(names)) for names in hosts] == [2, 2]
    said = cluster.run(*words, cwd=tmp_path, env=UNCHECKED).stdout
    assert said.startswith(f"all 2 runs of {folder} are finished")
    table = cluster.run(PYTHON, "-m", "ba_dist", "sweep", f"--table={folder}", cwd=tmp_path).stdout
    assert re.search(r"^runs  val_top1 .*\n2     .* ± .* %", table, re.MULTILINE), table


# --- stopped and started again ------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(running_cluster, tmp_path_factory):
    """The variables after a run that nobody stops."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = sbatch(running_cluster, folder, "cpu", ON_FOUR_NODES, LONG, UNCHECKED)
    assert running_cluster.wait(job) == "COMPLETED", running_cluster.output(job)
    return final_arrays(run_dir(folder, job))


def preempt(cluster, job, folder):
    """A more urgent job needs all nodes; its number."""
    return cluster.submit(
        "true", "--partition=urgent", "--nodes=4", "--exclusive", cwd=folder, name="urgent"
    )


def shorten(cluster, job, folder):
    """The time is nearly over: less is left than the two minutes that a script is warned before."""
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=2")


def test_a_job_that_is_stopped_twice_goes_on_as_if_it_had_not_been(
    cluster, undisturbed, tmp_path, promise
):
    job = sbatch(cluster, tmp_path, "cpu", [*ON_FOUR_NODES, "--time=60"], LONG, UNCHECKED)
    run = run_dir(tmp_path, job)
    stops = [0]
    for disturb in (preempt, shorten):
        wait_for_step(cluster, job, run, stops[-1] + 5)
        other = disturb(cluster, job, tmp_path)
        wait_for_requeue(cluster, job, len(stops))
        stops.append(checkpoint.newest_good(checkpoint.folder_of(run)).step)
        if disturb is preempt:
            assert cluster.wait(other, 60) == "COMPLETED"
        else:
            cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    assert cluster.wait(job) == "COMPLETED", cluster.output(job)

    output = cluster.output(job)
    assert "Exited with exit code 75" in output
    assert output.count("queueing this job again") == 2
    assert [f"start {number} of quickstart" in output for number in (1, 2, 3, 4)] == [1, 1, 1, 0]
    assert all(f"going on at step {stop} of {STEPS}" in output for stop in stops[1:])
    assert all(stop % EPOCH for stop in stops[1:]), "between two epochs is the simple case"
    assert steps_of(run) == list(range(1, STEPS + 1))
    audit = cluster.run(PYTHON, "-m", "ba_dist", "audit", run)
    assert f"clean: {STEPS} steps" in audit.stdout
    what = "preempted, then USR2 before the time limit, on 4 nodes: status 75, queues again"
    promise(3, what, 2, 2)
    arrays = final_arrays(run)
    assert set(arrays) == set(undisturbed)
    same = [name for name in undisturbed if np.array_equal(arrays[name], undisturbed[name])]
    where = " and ".join(f"{stop}" for stop in stops[1:])
    what = f"queued again at steps {where} of an epoch of {EPOCH}: all variables bit for bit"
    promise(4, what, len(same), len(undisturbed))


def test_what_is_cancelled_stays_away_and_goes_on_by_hand(cluster, tmp_path):
    run = tmp_path / "run"
    flags = [*LONG, "--checkpoint-every=1", f"--run-dir={run}"]
    job = sbatch(cluster, tmp_path, "cpu", ON_FOUR_NODES, flags, UNCHECKED)
    wait_for_step(cluster, job, run, 5)
    cluster.run("scancel", job)
    assert cluster.wait(job, 60) == "CANCELLED"
    cluster.wait_until_idle()
    assert cluster.job(job)["Restarts"] == "0" and cluster.state(job) == "CANCELLED"
    assert "queueing this job again" not in cluster.output(job)
    # The same run with a nearer end goes on; once more, and there is nothing left to do.
    flags.append(f"--steps={steps_of(run)[-1] + 3}")
    for goes_on in (True, False):
        job = sbatch(cluster, tmp_path, "cpu", ON_FOUR_NODES, flags, UNCHECKED)
        assert cluster.wait(job) == "COMPLETED", cluster.output(job)
        assert cluster.job(job)["Restarts"] == "0"
        output = cluster.output(job)
        assert "finished; see" in output and ("going on at step" in output) == goes_on


def test_what_fails_is_not_queued_again(cluster, tmp_path):
    flags = [*SHORT, "--no-such-flag"]
    job = sbatch(cluster, tmp_path, "cpu", ON_FOUR_NODES, flags, UNCHECKED)
    assert cluster.wait(job, 90) == "FAILED", cluster.output(job)
    facts, output = cluster.job(job), cluster.output(job)
    assert (facts["ExitCode"], facts["Restarts"]) == ("2:0", "0")
    assert "--no-such-flag" in output and "failed with exit status 2; not requeued" in output


@pytest.mark.parametrize(("end", "word"), [("urgent", "preempted"), ("scancel", "cancelled")])
def test_a_job_knows_why_slurm_ends_it(cluster, tmp_path, end, word):
    """What the job scripts read from `scontrol show job` is there while a job is being ended."""
    script = f"""\
. {ROOT}/slurm/lib.sh
trap : TERM
srun bash -c 'trap "exit 75" TERM; echo ready; while :; do sleep 0.1; done'
echo "status $?"
if preempted; then echo preempted; fi
if cancelled; then echo cancelled; fi
"""
    job = cluster.submit(script, "--nodes=4", "--ntasks-per-node=1", "--no-requeue", cwd=tmp_path)
    until(lambda: cluster.output(job).count("ready") == 4, lambda: cluster.output(job), 60)
    if end == "urgent":
        preempt(cluster, job, tmp_path)
    else:
        cluster.run("scancel", job)
    cluster.wait(job, 60)
    cluster.wait_until_idle()
    words = cluster.output(job).split()
    assert [name for name in ("preempted", "cancelled") if name in words] == [word]
