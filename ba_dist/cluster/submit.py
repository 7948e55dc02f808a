"""Submits a job: finds the site's script, writes the job script, calls sbatch."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from ba_dist.cluster.home import HOME
from ba_dist.cluster.job_script import Job
from ba_dist.errors import ConfigError, UserError, reason
from ba_dist.rules.layout import Layout
from ba_dist.storage import whole_file


def template(site: str, folder: Path = HOME / "slurm") -> str:
    """The text of a site's job script.

    Raises:
        ConfigError: when there is no such site, listing those that are.
    """
    scripts = {path.stem: path for path in folder.glob("*.sbatch")}
    if not scripts:
        raise ConfigError(f"there are no job scripts in {folder}; install ba_dist again")
    if site not in scripts:
        raise ConfigError(
            f"there is no site {site!r}; choose from {', '.join(sorted(scripts))}, or make"
            f" {folder}/NAME.sbatch from one of them"
        )
    return scripts[site].read_text()


def job_paths(folder: str) -> dict[str, Any]:
    """The paths of a job: `run_dir`, `home`, `work_dir`, and `python` where there is no .venv."""
    return {
        "run_dir": str(Path(folder).absolute()),
        "home": str(HOME),
        "python": "" if (HOME / ".venv").exists() else sys.executable,
        "work_dir": str(Path.cwd()),
    }


def submit(job: Job, text: str, layout: Layout) -> str:
    """Writes the job script to the run directory and submits it.

    Returns:
        Text for the user: the job's id and how to follow it.

    Raises:
        UserError: when it cannot be written, sbatch is missing, or sbatch fails.
    """
    number = write_and_submit(job, text)
    log = shlex.quote(job.log.replace("%j", number))
    return "\n".join(
        [
            f"submitted job {number}: {job.recipe}, {job.nodes} nodes x {job.ranks_per_node} ranks"
            f" = {layout.groups} groups of {layout.group_size}",
            f"  script            {shlex.quote(job.script)}",
            f"  its place         squeue -j {number}",
            f"  its log           tail -F {log}",
            f"  its curves        ba-dist plot {shlex.quote(job.run_dir)}",
            f"  save and requeue  scancel --batch --signal=USR2 {number}",
            f"  end it for good   scancel {number}",
        ]
    )


def write_and_submit(job: Job, text: str) -> str:
    """Writes the job script and submits it.

    Returns:
        The job's id.

    Raises:
        UserError: when it cannot be written, sbatch is missing, or sbatch fails.
    """
    script = Path(job.script)
    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        whole_file.write(script, text)
        script.chmod(0o755)
    except OSError as error:
        raise UserError(f"the job script {script} cannot be written: {error.strerror}") from None
    return _sbatch(script, job.work_dir)


def _sbatch(script: Path, work_dir: str) -> str:
    """The id that Slurm gives to the job."""
    written = f"the job script is in {shlex.quote(str(script))}"
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", str(script)], cwd=work_dir, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise UserError(
            f"there is no sbatch here; {written}, so submit it on a login node of the cluster"
        ) from None
    except OSError as error:
        raise UserError(f"sbatch does not run: {reason(error)}; {written}") from None
    if done.returncode:
        raise UserError(f"sbatch says no: {done.stderr.strip() or done.returncode}\n{written}")
    # With several clusters the answer is `id;cluster`.
    return done.stdout.strip().split(";")[0]
