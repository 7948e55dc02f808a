"""Builds the wheel of ba_dist and installs it where no clone is in sight."""

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> Path:
    """The path of the wheel, built from a copy, since a build leaves folders behind."""
    copy = folder / "copy"
    for name in ("ba_dist", "launch", "requirements", "slurm"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "MANIFEST.in", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    pip("wheel", "--no-build-isolation", "-w", folder, copy)
    (made,) = folder.glob("*.whl")
    return made


def install(wheel: Path, folder: Path) -> dict[str, str]:
    """Variables for a shell in an environment that has the wheel, and all else of this one's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip("--python", folder / "bin" / "python", "install", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched, its own .pth files, as that of the clone, are not.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    here = Path(sys.executable).parent
    (folder / "bin" / "mpirun").symlink_to(here / "mpirun")
    alien = ("PYTHON", "BA_DIST_", "OMPI_", "PMIX_", "PRTE_", "SLURM_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(alien)}
    return {**kept, "PATH": f"{folder / 'bin'}:/usr/bin:/bin"}


def pip(*words: object) -> None:
    flags = ["--no-deps", "--no-index", "--disable-pip-version-check"]
    position = 3 if words[0] == "--python" else 1
    line = [*words[:position], *flags, *words[position:]]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, line)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
