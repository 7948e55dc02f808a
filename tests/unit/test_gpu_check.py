"""launch/gpu_check.sh, its sums and the image, as far as machines without GPUs can show."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import ba_dist

ROOT = Path(ba_dist.__file__).parents[1]
STEPS = [
    *("devices", "links", "doctor", "sums", "data", "train", "audit", "again", "compare"),
    *("train-bf16", "train-fp16", "one-fp32", "all-fp32", "one-bf16", "all-bf16", "one-fp16"),
    *("all-fp16", "input"),
]


@pytest.fixture
def clone(tmp_path):
    """A clone whose launcher fails at once, on a node that lists four GPUs."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / "launch" / "mpirun.sh").write_text("echo no rank was started >&2; exit 3\n")
    (folder / ".venv").mkdir()
    (folder / ".venv" / ".setup-mpi").write_text(".venv/bin/mpirun\ngpu\n")
    smi(folder, "for i in 0 1 2 3; do echo GPU $i: a kind; done")
    return folder


def smi(clone: Path, script: str) -> None:
    """An nvidia-smi for the clone."""
    path = clone / "bin" / "nvidia-smi"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def check(clone: Path, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    found = path or f"{clone / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        [shutil.which("bash") or "bash", clone / "launch" / "gpu_check.sh", *words],
        env={"PATH": found},
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=60,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    return line.removeprefix("launch/gpu_check.sh: ")


def test_where_there_is_no_gpu_it_ends_in_one_line_and_makes_nothing(clone, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "dirname").symlink_to(shutil.which("dirname") or "")
    assert refused(check(clone, path=f"{bare}")).startswith(
        "no GPU here: nvidia-smi not found; run"
    )
    smi(clone, "echo cannot talk to the driver; exit 9")
    assert refused(check(clone)).startswith("no GPU here: nvidia-smi says: cannot talk to the dri")
    assert not (clone / "runs").exists()


def test_what_does_not_fit_the_node_is_refused(clone):
    assert refused(check(clone, "-n", "5")) == "-n 5, but nvidia-smi lists 4 GPUs"
    (clone / ".venv" / ".setup-mpi").write_text(".venv/bin/mpirun\ncpu\n")
    line = "this clone is set up for cpu; call GPU=1 make setup first"
    assert refused(check(clone)) == line


def test_steps_that_fail_are_told_and_the_others_are_done(clone):
    done = check(clone, "--folder", "runs/first")
    told = [line for line in done.stdout.splitlines() if "..." in line]
    assert done.returncode == 1 and [line.split(":")[0] for line in told] == STEPS
    ends = {line.split(":")[0]: line.split("... ")[1] for line in told}
    assert ends["devices"].startswith("ok") and ends["sums"].startswith("FAILED with status 3, see")
    assert "no rank was started" in (clone / "runs/first/sums.log").read_text()
    with tarfile.open(clone / "runs/first.tar.gz") as kept:
        assert {f"first/{step}.log" for step in STEPS} <= set(kept.getnames())
    assert "send runs/first.tar.gz" in done.stdout


def test_the_dry_run_has_commands_that_exist_with_flags_that_exist():
    done = check(ROOT, "--dry-run", "-n", "8", path=os.environ["PATH"])
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line[2:].split(":")[0] for line in lines[::2]] == STEPS
    helps: dict[str, str] = {}
    for line in lines[1::2]:
        words = line.split(" -- ")[-1].removeprefix(".venv/bin/ba-dist ").split()
        if words[0] == "nvidia-smi" or words[:2] == ["python", "launch/check_allreduce.py"]:
            continue
        program = words[1] if words[0] == "python" else words[0]
        flags = [word for word in words if word.startswith("--")]
        if program not in helps:
            call = [ROOT / program] if words[0] == "python" else ["-m", "ba_dist", program]
            helps[program] = subprocess.run(
                [sys.executable, *call, "--help"],
                env=os.environ | {"PYTHONPATH": f"{ROOT}"},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        for flag in flags:
            assert re.search(rf"{flag}\b", helps[program]), f"{program} has no {flag}"


def test_the_sums_that_are_expected():
    spec = importlib.util.spec_from_file_location("sums", ROOT / "launch" / "check_allreduce.py")
    assert spec and spec.loader
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    for ranks in range(1, 13):
        added = [sum((i + rank) % 5 for rank in range(ranks)) for i in range(23)]
        assert program.expected(23, ranks).tolist() == added
    assert program.expected(5, 512).max() <= 2048  # whole numbers that fp16 has


def test_the_image_is_made_of_what_is_here_by_the_steps_of_set_up():
    text = (ROOT / "launch" / "ba_dist.def").read_text()
    files = text.split("%files\n")[1].split("\n\n")[0].split()
    sources, places = files[::2], files[1::2]
    assert [f"/opt/ba_dist/{name}" for name in sources] == places
    assert all((ROOT / name).exists() for name in sources)
    # What set-up and the wheel read, and no more than them, benchmarks aside.
    needed = {"Makefile", "MANIFEST.in", "setup.py", "ba_dist", "launch", "requirements", "slurm"}
    assert set(sources) == needed | {"benchmarks"}
    assert "GPU=1 CUDA_HOME=/usr/local/cuda make setup" in text
    assert re.search(r"^From: nvidia/cuda:12\.\d+\.\d+-devel-", text, re.M)
