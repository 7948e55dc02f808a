"""What others' tools read of the project: the wheel, CITATION.cff, .pre-commit-config.yaml."""

import json
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

import ba_dist
from tests import wheel

ROOT = Path(ba_dist.__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The path of the project's wheel."""
    return wheel.build(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_module_the_scripts_and_says_that_it_is_typed(built):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "ba_dist").rglob("*.py")}
    scripts = {path for folder in ("launch", "slurm") for path in (ROOT / folder).rglob("*.*")}
    # Those that need a clone.
    alone = ("setup.sh", "horovod.sh", "gpu_check.sh", "ba_dist.def")
    scripts -= {ROOT / "launch" / name for name in alone}
    scripts -= {path for path in scripts if path.suffix == ".pyc"}
    scripts -= set((ROOT / "launch" / "patches").iterdir())
    added = {f"ba_dist/_scripts/{path.relative_to(ROOT)}" for path in scripts}
    names = {name for name in zipfile.ZipFile(built).namelist() if ".dist-info/" not in name}
    assert modules | {"ba_dist/py.typed"} | added == names


@pytest.mark.mpi
def test_the_wheel_works_where_there_is_no_clone(built, tmp_path):
    """Help, a job script and what it does outside of a job, the launcher, a training."""
    environment = wheel.install(built, tmp_path / "env")
    folder = tmp_path / "empty"
    folder.mkdir()

    def said(*words, status=0):
        done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    assert "Distributed batch augmentation" in said("ba-dist", "--help")
    assert "ba-dist run -n 2 -- train quickstart" in said("ba-dist", "run", "--help")
    line = said("ba-dist", "run", "-n", "2", "--dry-run", "--", "train", "quickstart")
    python = tmp_path / "env" / "bin" / "python"
    assert f" {tmp_path}/env/bin/mpirun -n 2 " in line
    assert line.endswith(f" KILL {python} -m ba_dist train quickstart\n")
    assert str(ROOT) not in line
    script = said("ba-dist", "submit", "quickstart", "--site", "cpu", "--nodes", "2", "--dry-run")
    assert f"export BA_DIST_PYTHON={python}\n" in script and str(ROOT) not in script
    # It finds its library in the package, which then finds no allocation here.
    (tmp_path / "job").write_text(script)
    assert "this is a job script; submit it" in said("bash", tmp_path / "job", status=2)
    words = ["train", "quickstart", "--dataset", "digits", "--train-samples", "1000"]
    words += ["--val-samples", "100", "--steps", "3", "--run-dir", "run"]
    said("ba-dist", "run", "-n", "2", "--", *words)
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert (summary["world_size"], summary["steps"]) == (2, 3)


def test_a_file_has_about_four_hundred_lines_at_most():
    """So that it is read at one sitting; CONTRIBUTING.md says so."""
    paths = [*(ROOT / "ba_dist").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    lengths = {f"{path}": len(path.read_text().splitlines()) for path in paths}
    assert len(lengths) > 200 and not {p: n for p, n in lengths.items() if n > 400}


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
