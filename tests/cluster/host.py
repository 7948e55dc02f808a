"""Whether this machine can carry the test cluster, and what has to be installed for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster import machines

CANNOT_RUN = 77
"""Exit status for "cannot run here", which is neither success nor failure."""

# Which Debian package brings which of the files that are used.
PACKAGES = {
    "slurmctld": ["slurmctld"],
    "slurmd": ["slurmd"],
    "slurm-client": ["srun", "sbatch", "scontrol", "sinfo"],
    "munge": ["munged", "mungekey"],
    "iproute2": ["ip", "tc"],
    "util-linux": ["unshare", "nsenter", "mount"],
    # Slurm opens the name without a version, which only this package has.
    "libpmix-dev": ["/usr/lib/*/pmix2/lib/libpmix.so"],
}
_DAEMONS = ("slurmctld", "slurmd", "slurmstepd", "munged", "slurmdbd")
_CONFIGURATIONS = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf")
_POLICY = Path("/usr/sbin/policy-rc.d")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def search_path() -> str:
    """PATH with the folders of the system's daemons, which not every shell has."""
    return os.pathsep.join([os.environ.get("PATH", ""), _SYSTEM_PATH]).strip(os.pathsep)


def missing_packages() -> list[str]:
    """The Debian packages that have to be installed."""
    return [name for name, files in PACKAGES.items() if not all(map(_there, files))]


def _there(file: str) -> bool:
    if file.startswith("/"):
        return any(Path("/").glob(file[1:]))
    return shutil.which(file, path=search_path()) is not None


def obstacles() -> list[str]:
    """Why no cluster can be brought up here; empty when nothing is in the way."""
    if sys.platform != "linux":
        return [f"it needs Linux namespaces, and this is {sys.platform}"]
    if os.geteuid() != 0:
        return ["it needs root, for namespaces with networks of their own"]
    found = foreign_slurm()
    missing = missing_packages()
    if missing and not shutil.which("apt-get"):
        found.append(f"{', '.join(missing)} missing, and no apt-get to install Debian packages")
    if not _namespaces_work():
        found.append("this machine (or the container) lets root make no new namespaces")
    return found


def _namespaces_work() -> bool:
    if not _there("unshare"):
        return False
    words = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--mount-proc"]
    return subprocess.run([*words, "true"], capture_output=True).returncode == 0


def foreign_slurm() -> list[str]:
    """Signs of a Slurm that is not a test cluster's; it must not be disturbed."""
    found = [f"{path} is there, so this machine belongs to a Slurm" for path in _CONFIGURATIONS]
    found = [line for line in found if Path(line.split()[0]).exists()]
    for process in machines.outside(_DAEMONS):
        found.append(f"{process.name} runs as process {process.pid}, and is no test cluster's")
    return found


def install(packages: list[str]) -> None:
    """Installs Debian packages without starting their daemons."""
    print("installing from Debian:", *packages, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    own_policy = not _POLICY.exists()
    if own_policy:  # Debian starts daemons as it installs them, unless this program forbids it
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(
                ["apt-get", "-qq", *words], env=environment, capture_output=True, text=True
            )
            if done.returncode and words[0] == "install":
                raise SystemExit(f"apt-get {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    finally:
        if own_policy:
            _POLICY.unlink()


def make_ready() -> None:
    """Installs what is missing; ends the program with status 77 where no cluster can be had."""
    found = obstacles()
    if found:
        print("NOT RUN: the test cluster cannot be brought up here:", file=sys.stderr)
        for line in found:
            print(f"  - {line}", file=sys.stderr)
        raise SystemExit(CANNOT_RUN)
    missing = missing_packages()
    if missing:
        install(missing)


if __name__ == "__main__":
    make_ready()
