"""What others' tools read of the project: the wheel, CITATION.cff, .pre-commit-config.yaml."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import ba_dist

ROOT = Path(ba_dist.__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel that is built from a copy, since a build leaves folders behind."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in ("ba_dist", "requirements"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "MANIFEST.in", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, copy]
    done = subprocess.run([sys.executable, "-m", "pip", *build], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return zipfile.ZipFile(made).namelist()


def test_the_wheel_holds_every_module_and_says_that_it_is_typed(wheel):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "ba_dist").rglob("*.py")}
    assert modules | {"ba_dist/py.typed"} == {name for name in wheel if ".dist-info/" not in name}


def test_the_citation_is_of_this_version_and_of_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == ba_dist.__version__
    paper = citation["preferred-citation"]
    assert paper["title"] in (ba_dist.__doc__ or "").replace("\n", " ")
    assert paper["url"] in (ROOT / "README.md").read_text()
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Hoffer", "Ben-Nun", "Hubara", "Giladi", "Hoefler", "Soudry"]


def test_pre_commit_runs_what_make_lint_runs():
    makefile = (ROOT / "Makefile").read_text()
    lint = makefile.split("\nlint:")[1].split("\n\n")[0].splitlines()[1:]
    expected = [re.sub(r" (\.|\$\(SCRIPTS\))$", "", line.strip()) for line in lint]
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for hook in local["hooks"]] == expected
    patterns = makefile.split("SCRIPTS := $(wildcard ")[1].split(")")[0].split()
    scripts = {path for pattern in patterns for path in ROOT.glob(pattern)}
    checked = re.compile(local["hooks"][-1]["files"])
    files = (
        path
        for folder in (".ci", "launch", "slurm", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*")
    )
    assert {path for path in files if checked.search(str(path.relative_to(ROOT)))} == scripts
