"""launch/srun.sh and launch/mpirun.sh inside an allocation of four nodes."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.cluster import until
from tests.parallel.ranks import ROOT

PROGRAMS = Path(__file__).parent / "programs"
PYTHON = ROOT / ".venv" / "bin" / "python"
LAUNCHERS = {name: ROOT / "launch" / f"{name}.sh" for name in ("srun", "mpirun")}
ON_FOUR_NODES = ("--nodes=4", "--ntasks-per-node=1", "--cpus-per-task=2", "--no-requeue")
TRIES = 20


def run_job(cluster, script, folder, *options, timeout=200):
    """What a job printed, and its last state."""
    job = cluster.submit(script, *(options or ON_FOUR_NODES), cwd=folder)
    state = cluster.wait(job, timeout)
    return cluster.output(job), state


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_request_to_stop_reaches_all_ranks_and_the_status_comes_back(
    cluster, launcher, tmp_path, promise
):
    script = f"{PYTHON} {PROGRAMS}/stop_often.py {TRIES} {LAUNCHERS[launcher]}"
    output, _ = run_job(cluster, script, tmp_path)
    assert output.count("ready on 4 nodes with 2 threads a rank") == TRIES
    tries = [line.split() for line in output.splitlines() if line.startswith("try:")]
    good = sum(words[2] == "75" and words[4] == "4" for words in tries)
    seconds = [float(words[6]) for words in tries]
    promise(3, f"USR2 or TERM under {launcher}: all ranks save, status 75", good, TRIES, seconds)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_one_failing_rank_ends_the_job_with_its_status(cluster, launcher, tmp_path, promise):
    script = f"{PYTHON} {PROGRAMS}/fail_often.py {TRIES} {LAUNCHERS[launcher]}"
    output, _ = run_job(cluster, script, tmp_path)
    tries = [line.split() for line in output.splitlines() if line.startswith("try:")]
    # Where a rank is simply gone, another one may be the first to say so: Open MPI's status 14.
    good = sum(words[2] in ("9", "14") and float(words[4]) < 10 for words in tries)
    seconds = [float(words[4]) for words in tries]
    promise(2, f"a rank fails under {launcher}: its status, in 10 s", good, TRIES, seconds)
    assert not cluster.find("failing.py")


@pytest.mark.parametrize(
    ("options", "words", "expected"),
    [
        (["--nodes=2", "--ntasks-per-node=2"], [], ("SRUN_CPUS_PER_TASK=1", 4, "threads=1")),
        (["--nodes=1", "--cpus-per-task=2"], [], ("SRUN_CPUS_PER_TASK=2", 1, "threads=2")),
        (["--nodes=2", "--exclusive"], ["-n", "4"], ("SRUN_CPUS_PER_TASK=1", 4, "threads=1")),
        (["--nodes=2", "--exclusive"], ["--mpi=none"], ("SRUN_CPUS_PER_TASK=2", 2, "threads=2")),
        (["--nodes=2", "--export=NONE"], [], ("SRUN_CPUS_PER_TASK=1", 2, "threads=1")),
    ],
)
def test_srun_divides_the_allocation(cluster, tmp_path, options, words, expected):
    (tmp_path / "show.py").write_text(
        "import os\nprint('SRUN_CPUS_PER_TASK=' + os.environ['SRUN_CPUS_PER_TASK'],"
        " 'threads=' + os.environ['OMP_NUM_THREADS'], flush=True)\n"
    )
    settings = f"export SLURM_CONF={cluster.plan.slurm_conf}\n"  # --export=NONE drops it
    line = " ".join(map(str, [LAUNCHERS["srun"], *words, "-- python", tmp_path / "show.py"]))
    output, state = run_job(cluster, settings + line, tmp_path, *options)
    assert state == "COMPLETED", output
    cpus, ranks, threads = expected
    assert output.splitlines() == [f"{cpus} {threads}"] * ranks


def test_srun_needs_an_allocation_and_explains_itself():
    def said(*words):
        done = subprocess.run([LAUNCHERS["srun"], *words], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert said("--help")[0] == 0
    for words, text in [
        (["--", "train"], "there is no allocation here"),
        (["train"], "no `--` before the program"),
        (["-n", "--", "train"], "-n needs a value"),
        (["-n", "x", "--", "train"], "not 'x'"),
        (["--"], "nothing after `--`"),
    ]:
        status, message = said(*words)
        assert status == 1 and text in message


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_quickstart_trains_on_four_nodes(cluster, launcher, tmp_path, promise):
    run = tmp_path / "run"
    words = f"train quickstart --multiplicity 4 --steps 20 --log-every 1 --trace --run-dir {run}"
    job = cluster.submit(f"{LAUNCHERS[launcher]} -- {words}", *ON_FOUR_NODES, cwd=tmp_path)
    cluster.wait_for_state(job, {"RUNNING"})
    start = time.monotonic()
    metrics = run / "metrics.jsonl"
    until(
        lambda: metrics.exists() and '"step": 1,' in metrics.read_text(),
        lambda: cluster.output(job),
        120,
    )
    seconds = time.monotonic() - start
    assert cluster.wait(job) == "COMPLETED", cluster.output(job)
    facts = json.loads((run / "config.json").read_text())
    assert sorted(facts["hosts"]) == cluster.nodes
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["world_size"], summary["steps"]) == (4, 20)
    audit = cluster.run(PYTHON, "-m", "ba_dist", "audit", run)
    assert "clean: 20 steps" in audit.stdout
    promise(0, f"quickstart on 4 nodes by {launcher}: start to first step", 0, 0, seconds)
