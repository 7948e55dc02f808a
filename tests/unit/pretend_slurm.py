"""Stand-ins for srun and scontrol, and a job that runs on them."""

import shutil
import subprocess
import time
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]

# All that the scripts need besides bash; a real Slurm of this machine must not be found.
TOOLS = ("bash", "cat", "env", "find", "grep", "lscpu", "mkdir", "sed", "sleep", "sort", "wc")

# What the ranks of a run leave that has finished.
FINISH = """
while [ $# -gt 0 ]; do
  case $1 in
    --run-dir=*) run=${1#*=} ;;
    --run-dir) run=$2 ;;
  esac
  shift
done
if [ -n "$run" ] && [ -z "$UNFINISHED" ]; then mkdir -p "$run" && echo {} >"$run/summary.json"; fi
"""

# Stands for srun: notes its words and variables, waits for a signal or the end, and saves a
# checkpoint if asked. Like the real one it hands SIGUSR2 on to the ranks; SIGTERM kills them.
SRUN = """#!/bin/bash
printf '%s\\n' "$*" >>"$STAND_IN/steps"
env >"$STAND_IN/environment"
case " $* " in *" doctor "*) sleep "${DOCTOR_SECONDS:-0}"; exit "${DOCTOR:-0}" ;; esac
trap 'echo TERM >>"$STAND_IN/signals"; exit 143' TERM
trap 'echo USR2 >>"$STAND_IN/signals"; STOPPED=1' USR2
echo ready >"$STAND_IN/ready"
for ((i = 0; i < ${STEP_TENTHS:-0}; i++)); do
  [ -z "$STOPPED" ] || break
  sleep 0.1
done
if [ -n "$SAVES" ]; then
  sleep 0.05
  mkdir -p "$SAVES/checkpoints"
  echo >"$SAVES/checkpoints/step-00000007.safetensors"
fi
if [ "${STEP_STATUS:-0}" != 0 ]; then exit "$STEP_STATUS"; fi
"""
SRUN += FINISH
SCONTROL = """#!/bin/bash
printf '%s\\n' "$*" >>"$STAND_IN/scontrol"
case $1 in
  show)
    if [ -n "$BUSY" ] && [ ! -e "$STAND_IN/asked" ]; then echo >"$STAND_IN/asked"; exit 1; fi
    echo "JobId=7 JobName=x"; echo "   JobState=${JOB_STATE:-RUNNING} Reason=None"
    echo "   StartTime=${START_TIME:-2026-01-01T00:00:00} EndTime=2026-01-01T01:00:00 Deadline=N/A"
    echo "   PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=${PREEMPT_TIME:-None}"
    echo "   Command=${COMMAND_PATH:-/x/y.sh} a b" ;;
  requeue) echo "$REQUEUE_SAYS" >&2; exit "${REQUEUE_STATUS:-0}" ;;
esac
"""


class Cluster:
    """One job on a Slurm that is only made up."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.program("srun", SRUN)
        self.program("scontrol", SCONTROL)
        # The scripts are run from a spool folder, as sbatch runs them.
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.clone = folder / "the clone"
        shutil.copytree(CLONE / "slurm", self.clone / "slurm")

    def with_launch_scripts(self):
        """Puts an environment and the scripts of launch/ into the clone; they are made up, too."""
        (self.clone / ".venv" / "bin").mkdir(parents=True)
        (self.clone / ".venv" / "bin" / "python").symlink_to(shutil.which("true"))
        (self.clone / "launch").mkdir()
        for name in ("srun", "mpirun"):
            path = self.clone / "launch" / f"{name}.sh"
            note = f'echo "{name}.sh $*" >>"$STAND_IN/launched"\n'
            path.write_text(f"#!/usr/bin/env bash\n{note}{FINISH}")
            path.chmod(0o755)

    def program(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, *words, site="gpu", **variables):
        """Starts the job; words are those behind the script's name."""
        script = self.spool / "slurm_script"
        shutil.copy(self.clone / "slurm" / f"{site}.sbatch", script)
        environment = {
            "PATH": str(self.bin),
            "HOME": str(self.folder),
            "STAND_IN": str(self.folder),
            "SLURM_JOB_ID": "7",
            "SLURM_SUBMIT_DIR": str(self.clone),
            "SLURM_NTASKS": "8",
            "SLURM_NTASKS_PER_NODE": "4",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_CPUS_ON_NODE": "64",
            **{name: str(value) for name, value in variables.items()},
        }
        environment = {name: value for name, value in environment.items() if value != "unset"}
        command = [
            str(self.bin / "bash"),
            str(script),
            *map(str, words or ["quickstart", "--steps=3"]),
        ]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.clone, env=environment, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, *words, **variables):
        """(exit status, output, errors) of the job."""
        with self.start(*words, **variables) as job:
            out, err = job.communicate(timeout=60)
        return job.returncode, out, err

    def lines(self, name):
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def requeues(self):
        return self.lines("scontrol").count("requeue 7")

    def run_dir(self):
        return self.clone / "runs" / "quickstart-7"

    def wait_for(self, name):
        for _ in range(200):
            if (self.folder / name).exists():
                return
            time.sleep(0.05)
        raise AssertionError(f"no {name}")
