"""The job scripts of slurm/, run by a real bash; stand-ins on the PATH take the place of Slurm.

What only a real one can show is in tests/cluster/.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ba_dist.training import RUN_AGAIN

from .pretend_slurm import CLONE, Cluster

SCRIPTS = sorted((CLONE / "slurm").glob("*.sbatch"))
SHELL = [*SCRIPTS, *sorted((CLONE / "slurm").glob("*.sh"))]
SITE = {
    "cray-xc": ["--cpu-bind=none"],
    "cray-ex": ["--environment=", "--mpi=pmix"],
    "lumi": ["--cpu-bind=mask_cpu:0xfe000000000000,", "/slurm/select_gpu.sh"],
    "gpu": ["--cpu-bind=cores"],
    "cpu": ["--cpu-bind=cores"],
}
VARIABLES = {
    "cray-xc": {"MPICH_MAX_THREAD_SAFETY": "multiple", "NCCL_IB_HCA": "ipogif0"},
    "cray-ex": {"NCCL_NET": "AWS Libfabric", "MPICH_GPU_SUPPORT_ENABLED": "0"},
    "lumi": {"NCCL_SOCKET_IFNAME": "hsn0,hsn1,hsn2,hsn3", "OMP_NUM_THREADS": "7"},
    "gpu": {"NCCL_DEBUG": "WARN", "OMP_NUM_THREADS": "8"},
    "cpu": {"OMPI_MCA_mpi_yield_when_idle": "1", "I_MPI_THREAD_YIELD": "2"},
}


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


# --- the files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_bash_and_shellcheck_have_nothing_to_say(path):
    subprocess.run(["bash", "-n", path], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    checked = subprocess.run(
        [shellcheck, "-x", path.relative_to(CLONE)], cwd=CLONE, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


def test_the_sites_that_were_promised():
    assert [path.stem for path in SCRIPTS] == sorted(SITE)


def test_common_parts_live_once():
    """After its own lines every script is the same."""
    ends = {path.read_text().partition("# --- the same in every script")[2] for path in SCRIPTS}
    assert len(ends) == 1 and "run_job" in ends.pop()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_requeues_appends_and_is_warned(path):
    options = path.read_text().partition("set -euo pipefail")[0].splitlines()
    for option in ("--signal=B:USR2@120", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {option}" in options
    assert [line for line in options if re.match("##?SBATCH --account=ACCOUNT$", line)]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_variable_of_a_site_has_its_reason(path):
    lines = path.read_text().splitlines()
    for before, line in zip(lines, lines[1:], strict=False):
        if line.strip().startswith(("export ", "module ")) and "export" not in before:
            assert before.strip().startswith("#"), line


def test_the_exit_status_is_that_of_the_program():
    assert re.search(rf"^RUN_AGAIN={RUN_AGAIN} ", (CLONE / "slurm/lib.sh").read_text(), re.M)


# --- what is started ----------------------------------------------------------------------------


@pytest.mark.parametrize("site", sorted(SITE))
def test_what_each_site_starts(cluster, site):
    # `module` is a function of the login shell on a real cluster.
    cluster.program("module", '#!/bin/bash\necho "$*" >>"$STAND_IN/modules"\n')
    cpus = {"gpu": 8, "cray-xc": 24, "cray-ex": 72, "lumi": 7}.get(site, "unset")
    status, out, err = cluster.run(site=site, SLURM_CPUS_PER_TASK=cpus)
    assert (status, err) == (0, "") and "finished" in out
    doctor, train = cluster.lines("steps")
    for part in ("--kill-on-bad-exit=1", *SITE[site]):
        assert part in doctor and part in train
    assert doctor.endswith("-m ba_dist doctor")
    assert train.endswith(f"-m ba_dist train quickstart --steps=3 --run-dir={cluster.run_dir()}")
    environment = dict(line.split("=", 1) for line in cluster.lines("environment") if "=" in line)
    assert VARIABLES[site].items() <= environment.items()
    assert environment["SLURM_EXPORT_ENV"] == "ALL"
    assert environment["TF_NUM_INTRAOP_THREADS"] == environment["OMP_NUM_THREADS"]
    assert environment["SRUN_CPUS_PER_TASK"] == str(cpus if cpus != "unset" else 16)
    assert bool(cluster.lines("modules")) == (site in ("cray-xc", "lumi"))


def test_module_is_looked_for_where_a_script_has_none(cluster):
    start = cluster.folder / "home of modules" / "init" / "bash"
    start.parent.mkdir(parents=True)
    start.write_text('module() { echo "$*" >>"$STAND_IN/modules"; }\n')
    assert cluster.run(site="lumi", MODULESHOME=cluster.folder / "home of modules")[0] == 0
    assert cluster.lines("modules") == ["load LUMI partition/G"]


def test_the_wrapper_leaves_a_rank_its_gpu():
    command = [CLONE / "slurm" / "select_gpu.sh", "printenv", "ROCR_VISIBLE_DEVICES"]
    environment = {"PATH": os.environ["PATH"], "SLURM_LOCALID": "5"}
    assert subprocess.check_output(command, env=environment, text=True) == "5\n"


def test_values_that_are_set_are_kept(cluster):
    cluster.run(OMP_NUM_THREADS=3, SLURM_CPUS_PER_TASK=8)
    assert "OMP_NUM_THREADS=3" in cluster.lines("environment")


def test_a_site_file_replaces_the_sites_lines(cluster):
    site_file = cluster.folder / "my site.sh"
    site_file.write_text("STEP_OPTIONS=(--mpi=pmi2)\nexport MINE=1\nfalse\necho $UNSET\n")
    status, _, err = cluster.run(site="lumi", BA_DIST_SITE_FILE=site_file)
    assert (status, err) == (0, "")
    assert cluster.lines("steps")[1].startswith("--kill-on-bad-exit=1 --mpi=pmi2 ")
    assert "MINE=1" in cluster.lines("environment")
    status, _, err = cluster.run(BA_DIST_SITE_FILE="/no/such/file")
    assert status == 2 and "BA_DIST_SITE_FILE=/no/such/file cannot be read" in err


@pytest.mark.parametrize(
    ("launcher", "words"),
    [("unset", "srun.sh --cpu-bind=cores --"), ("mpirun", "mpirun.sh -n 8 --")],
)
def test_the_launchers_of_the_clone(cluster, launcher, words):
    cluster.with_launch_scripts()
    status, _, err = cluster.run(BA_DIST_LAUNCHER=launcher)
    assert (status, err) == (0, "")
    flags = f"--steps=3 --run-dir={cluster.run_dir()}"
    launched = [f"{words} doctor", f"{words} train quickstart {flags}"]
    assert cluster.lines("launched") == launched and not cluster.lines("steps")


@pytest.mark.parametrize("change", ["plain", "wrapper", "container"])
def test_where_srun_is_called_plainly(cluster, change):
    cluster.with_launch_scripts()
    if change == "container":
        (cluster.clone / ".venv" / "bin" / "python").unlink()
    site = "lumi" if change == "wrapper" else "gpu"
    launcher = "plain" if change == "plain" else "unset"
    assert cluster.run(site=site, BA_DIST_LAUNCHER=launcher)[0] == 0
    assert len(cluster.lines("steps")) == 2 and not cluster.lines("launched")


def test_an_unknown_launcher(cluster):
    status, _, err = cluster.run(BA_DIST_LAUNCHER="ssh")
    assert status == 2 and "BA_DIST_LAUNCHER=ssh is neither srun, mpirun nor plain" in err


# --- finding the clone --------------------------------------------------------------------------


def test_the_clone_is_found(cluster):
    elsewhere = cluster.folder / "elsewhere"
    elsewhere.mkdir()
    status, _, err = cluster.run(SLURM_SUBMIT_DIR=elsewhere)
    assert status == 2 and "call sbatch in one, or set BA_DIST_HOME" in err
    assert cluster.run(SLURM_SUBMIT_DIR=elsewhere, BA_DIST_HOME=cluster.clone)[0] == 0
    command = f"{cluster.clone}/slurm/gpu.sbatch"
    assert cluster.run(SLURM_SUBMIT_DIR=elsewhere, COMMAND_PATH=command)[0] == 0
    # What a person says is not overridden.
    status, _, err = cluster.run(BA_DIST_HOME=elsewhere)
    assert status == 2 and str(elsewhere) in err


@pytest.mark.parametrize("words", [["--help"], [""], ["a/b"], ["$(id)"], ["../x", "--steps=3"]])
def test_what_is_no_recipe(cluster, words):
    status, _, err = cluster.run(*words)
    assert status == 2 and "is not the name of a recipe; usage: sbatch slurm/gpu.sbatch" in err
    assert not cluster.lines("steps")


def test_a_script_that_is_not_submitted(cluster):
    status, _, err = cluster.run(SLURM_JOB_ID="unset")
    assert status == 2 and "this is a job script; submit it: sbatch slurm/gpu.sbatch" in err


# --- the run directory --------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--run-dir", "a b/c"], ["--run-dir=x", "--run-dir=a b/c"]])
def test_the_run_directory_of_the_user(cluster, words):
    cluster.run("quickstart", *words)
    assert cluster.lines("steps")[1].endswith(f"train quickstart {' '.join(words)}")
    assert (cluster.clone / "a b" / "c" / "job" / "first-start-7").exists()


def test_no_resume_is_for_the_first_start(cluster):
    words = ["quickstart", "--no-resume"]
    old = cluster.run_dir() / "checkpoints"
    old.mkdir(parents=True)
    (old / "step-00000099.safetensors").write_text("of an older job")
    cluster.run(*words, STEP_STATUS=RUN_AGAIN)
    cluster.run(*words, STEP_STATUS=RUN_AGAIN, SAVES=cluster.run_dir(), SLURM_RESTART_COUNT=1)
    _, out, _ = cluster.run(*words, SLURM_RESTART_COUNT=2)
    assert "start 3 of quickstart --no-resume" in out
    starts = [line for line in cluster.lines("steps") if " train " in line]
    assert [line.endswith(" --resume") for line in starts] == [False, False, True]


# --- the check before ---------------------------------------------------------------------------


def test_a_broken_environment_ends_the_job(cluster):
    status, _, err = cluster.run("quickstart", "--data-dir", "/d", DOCTOR=1)
    assert status == 1 and "nothing was trained" in err
    assert [line.split("ba_dist ")[1] for line in cluster.lines("steps")] == [
        "doctor --data-dir=/d"
    ]
    assert cluster.requeues() == 0
    assert cluster.run(DOCTOR=1, BA_DIST_DOCTOR=0)[0] == 0


# --- how it ends --------------------------------------------------------------------------------


def test_what_has_finished_is_not_requeued(cluster):
    status, out, _ = cluster.run(STEP_STATUS=0)
    assert status == 0 and "finished; see" in out and cluster.requeues() == 0


def test_status_0_without_a_result_is_a_failure(cluster):
    status, _, err = cluster.run(UNFINISHED=1)
    assert status == 1 and "left no summary.json" in err and cluster.requeues() == 0


@pytest.mark.parametrize("status", [1, 2, 137, 143])
def test_what_has_failed_is_not_requeued(cluster, status):
    found, _, err = cluster.run(STEP_STATUS=status)
    assert found == status and f"failed with exit status {status}; not requeued" in err
    assert cluster.requeues() == 0


def test_what_was_stopped_is_requeued(cluster):
    status, out, _ = cluster.run(STEP_STATUS=RUN_AGAIN, SAVES=cluster.run_dir())
    assert status == RUN_AGAIN and cluster.requeues() == 1
    assert (
        f"queueing this job again; it goes on from the newest checkpoint in {cluster.run_dir()}"
        in out
    )


def test_without_scontrol(cluster):
    (cluster.bin / "scontrol").unlink()
    status, out, _ = cluster.run("quickstart", "--data-dir", "a b", STEP_STATUS=RUN_AGAIN)
    assert status == RUN_AGAIN and "not requeued: there is no scontrol here" in out
    hint = out.partition("sbatch ")[2].partition("   (with")[0]
    words = subprocess.check_output(["bash", "-c", f"printf '%s\\n' {hint}"], text=True)
    assert words.splitlines() == [
        *(f"{cluster.clone}/slurm/gpu.sbatch", "quickstart", "--data-dir", "a b"),
        f"--run-dir={cluster.run_dir()}",
    ]


def test_scontrol_says_no(cluster):
    answer = {"REQUEUE_STATUS": 1, "REQUEUE_SAYS": "Requested operation is presently disabled"}
    status, out, _ = cluster.run(
        STEP_STATUS=RUN_AGAIN, BA_DIST_SCRIPT="/r/job/submit.sbatch", **answer
    )
    assert status == RUN_AGAIN
    assert "not requeued: Requested operation is presently disabled. To go on" in out
    assert ": sbatch /r/job/submit.sbatch --run-dir=" in out


@pytest.mark.parametrize(
    ("state", "preempted", "requeues"),
    [
        ("RUNNING", "None", 1),
        ("COMPLETING", "None", 0),
        ("CANCELLED", "None", 0),
        ("COMPLETING", "2026-01-01T00:00:09", 1),
    ],
)
def test_a_job_that_was_cancelled_does_not_come_back(cluster, state, preempted, requeues):
    _, out, _ = cluster.run(STEP_STATUS=RUN_AGAIN, JOB_STATE=state, PREEMPT_TIME=preempted)
    assert cluster.requeues() == requeues
    assert ("not requeued: Slurm is ending this job" in out) == (not requeues)


BEFORE = {"PREEMPT_TIME": "2026-01-01T00:00:09", "START_TIME": "2026-01-01T00:02:30"}
SAME = {**BEFORE, "START_TIME": BEFORE["PREEMPT_TIME"]}
UNKNOWN = {**BEFORE, "START_TIME": "Unknown"}


@pytest.mark.parametrize(("times", "counts"), [(BEFORE, False), (SAME, True), (UNKNOWN, True)])
def test_only_a_preemption_of_this_start_counts(cluster, times, counts):
    """A Slurm might still show the one that ended an earlier start of the job."""
    _, out, _ = cluster.run(STEP_STATUS=RUN_AGAIN, JOB_STATE="COMPLETING", **times)
    assert cluster.requeues() == counts
    assert ("not requeued: Slurm is ending this job" in out) == (not counts)
    assert cluster.run(STEP_STATUS=137, **times)[0] == (RUN_AGAIN if counts else 137)
    assert cluster.requeues() == (0 if not counts else 2)


def test_a_controller_that_is_busy_is_asked_again(cluster):
    cluster.run(STEP_STATUS=RUN_AGAIN, JOB_STATE="CANCELLED", BUSY=1)
    assert cluster.requeues() == 0


def test_ranks_that_preemption_has_killed(cluster):
    assert cluster.run(STEP_STATUS=137, PREEMPT_TIME="2026-01-01T00:00:09")[0] == RUN_AGAIN
    assert cluster.requeues() == 1
    # An error of the program's own stays one.
    assert cluster.run(STEP_STATUS=1, PREEMPT_TIME="2026-01-01T00:00:09")[0] == 1


def test_a_signal_while_modules_are_loaded(cluster):
    site_file = cluster.folder / "site.sh"
    site_file.write_text('echo >"$STAND_IN/ready"; sleep 0.5\n')
    with cluster.start(BA_DIST_SITE_FILE=site_file) as job:
        cluster.wait_for("ready")
        job.send_signal(signal.SIGTERM)
        job.communicate(timeout=60)
    assert job.returncode == RUN_AGAIN and cluster.requeues() == 1 and not cluster.lines("steps")


def test_a_limit_on_fruitless_requeues(cluster):
    saves = {"STEP_STATUS": RUN_AGAIN, "SAVES": cluster.run_dir()}
    for requeues, variables in enumerate([{}, {}, saves, {}, {}], 1):
        time.sleep(0.02)
        assert cluster.run(**{"STEP_STATUS": RUN_AGAIN, **variables})[0] == RUN_AGAIN
        assert cluster.requeues() == requeues
    status, _, err = cluster.run(STEP_STATUS=RUN_AGAIN)
    assert status == 1 and "stopped 3 times without a new checkpoint" in err
    assert cluster.requeues() == 5
    # Another job in the same run directory starts counting anew.
    answer = cluster.run(
        "quickstart", f"--run-dir={cluster.run_dir()}", STEP_STATUS=RUN_AGAIN, SLURM_JOB_ID=8
    )
    assert answer[0] == RUN_AGAIN and "requeue 8" in cluster.lines("scontrol")


def test_the_limit_can_be_set(cluster):
    assert cluster.run(STEP_STATUS=RUN_AGAIN, BA_DIST_MAX_FRUITLESS=1)[0] == 1
    assert cluster.requeues() == 0


# --- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TERM", "USR1", "USR2"])
def test_signals_reach_the_ranks(cluster, name):
    variables = {"STEP_STATUS": RUN_AGAIN, "SAVES": cluster.run_dir(), "STEP_TENTHS": 300}
    with cluster.start(**variables) as job:
        cluster.wait_for("ready")
        begun = time.monotonic()
        job.send_signal(signal.Signals[f"SIG{name}"])
        out, _ = job.communicate(timeout=60)
    assert job.returncode == RUN_AGAIN and time.monotonic() - begun < 20
    # Never SIGTERM, on which srun kills the ranks.
    assert cluster.lines("signals") == ["USR2"]
    assert f"SIG{name}: asking the ranks to save and stop" in out and cluster.requeues() == 1


def test_several_signals(cluster):
    with cluster.start(STEP_STATUS=RUN_AGAIN, STEP_TENTHS=300) as job:
        cluster.wait_for("ready")
        for name in (signal.SIGUSR2, signal.SIGTERM, signal.SIGUSR2):
            job.send_signal(name)
            time.sleep(0.03)
        job.communicate(timeout=60)
    # A second request would be taken for impatience.
    assert job.returncode == RUN_AGAIN and cluster.lines("signals") == ["USR2"]


def test_a_run_that_finishes_all_the_same(cluster):
    with cluster.start(STEP_STATUS=0, STEP_TENTHS=300) as job:
        cluster.wait_for("ready")
        job.send_signal(signal.SIGUSR2)
        out, _ = job.communicate(timeout=60)
    assert job.returncode == 0 and "finished" in out and cluster.requeues() == 0


def test_ranks_that_die_of_the_signal_while_they_start(cluster):
    with cluster.start(STEP_STATUS=140, STEP_TENTHS=300) as job:
        cluster.wait_for("ready")
        job.send_signal(signal.SIGUSR2)
        job.communicate(timeout=60)
    assert job.returncode == RUN_AGAIN and cluster.requeues() == 1


def test_a_signal_during_the_check(cluster):
    with cluster.start(DOCTOR_SECONDS=1) as job:
        cluster.wait_for("steps")
        job.send_signal(signal.SIGTERM)
        job.communicate(timeout=60)
    assert job.returncode == RUN_AGAIN and cluster.requeues() == 1
    assert len(cluster.lines("steps")) == 1
