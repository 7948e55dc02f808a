"""What `make setup` refuses before it does anything, and what it pins and keeps apart."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf

import ba_dist
from ba_dist import comm, doctor
from ba_dist.errors import UserError

ROOT = Path(ba_dist.__file__).parents[1]
VERSIONS = sorted(
    path.stem.removeprefix("tensorflow-") for path in ROOT.glob("requirements/tensorflow-*.txt")
)


@pytest.fixture
def clone(tmp_path):
    """A clone without its environment."""
    folder = tmp_path / "clone"
    for name in ("launch", "requirements"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "setup.py", folder)
    return folder


def program(path: Path, answer: str) -> Path:
    """A program that gives one answer, as an interpreter or compiler that is not here would."""
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def python(folder: Path, version: str) -> Path:
    return program(folder / f"python{version}", f"{version}.1 /usr/bin/python{version}")


def refused(clone: Path, **variables: object) -> str:
    """The one line with which set-up ends; it has made nothing that was not there."""
    there = set(clone.rglob("*"))
    names = ("TENSORFLOW", "PYTHON", "MPICXX", "GPU", "CUDA_HOME", "CXX")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        ["bash", clone / "launch" / "setup.sh"],
        env=kept | {name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1 and not done.stdout
    assert set(clone.rglob("*")) == there
    (line,) = done.stderr.splitlines()
    return line.removeprefix("ba_dist set-up: ")


def test_a_tensorflow_that_is_not_known(clone):
    line = refused(clone, TENSORFLOW="2.17.1")
    assert line == (
        f"TENSORFLOW=2.17.1 is not known to work; take one of these: {' '.join(VERSIONS)}"
    )
    assert "TENSORFLOW=2.2 is not" in refused(clone, TENSORFLOW="2.2")  # a part of one that is


@pytest.mark.parametrize(
    ("version", "tensorflow", "newest"),
    [
        ("3.9", "2.18.1", "3.12"),
        ("3.9", "2.21.0", "3.13"),
        ("3.13", "2.18.1", "3.12"),
        ("3.13", "2.19.1", "3.12"),
        ("3.14", "2.21.0", "3.13"),
        ("2.7", "2.20.0", "3.13"),
    ],
)
def test_a_python_that_a_tensorflow_has_no_wheels_for(clone, tmp_path, version, tensorflow, newest):
    given = python(tmp_path, version)
    line = refused(clone, PYTHON=given, TENSORFLOW=tensorflow)
    assert line.startswith(
        f"TensorFlow {tensorflow} needs Python 3.10 to {newest}, found {given} is {version}.1; "
    )
    assert ("with Python 3.13: make setup TENSORFLOW=2.21.0" in line) == (version == "3.13")


@pytest.mark.parametrize(
    ("version", "tensorflow"),
    [("3.10", "2.18.1"), ("3.12", "2.19.1"), ("3.13", "2.20.0"), ("3.10", "2.21.0")],
)
def test_a_python_that_is_taken(clone, tmp_path, version, tensorflow):
    # It comes as far as the next question.
    line = refused(
        clone, PYTHON=python(tmp_path, version), TENSORFLOW=tensorflow, MPICXX="/nowhere/mpicxx"
    )
    assert line.startswith("MPICXX=/nowhere/mpicxx not found")


@pytest.mark.parametrize("tensorflow", [v for v in VERSIONS if v != "2.18.1"])
def test_gpus_with_a_tensorflow_that_was_never_compiled_with_cuda(clone, tmp_path, tensorflow):
    given = python(tmp_path, "3.11")
    line = refused(clone, PYTHON=given, TENSORFLOW=tensorflow, GPU=1)
    assert line.startswith("GPU=1 goes with TENSORFLOW=2.18.1 alone") and tensorflow in line


def test_an_mpi_that_is_too_old(clone, tmp_path):
    mpi = program(tmp_path / "mpicxx", "ba_dist_mpi 3 . 0 openmpi 1 . 8 . 8")
    line = refused(clone, PYTHON=python(tmp_path, "3.11"), MPICXX=mpi)
    assert line.startswith(f"{mpi} offers MPI 3.0, 3.1 or newer is needed")


def test_the_tensorflow_of_the_last_set_up_is_remembered(clone, tmp_path):
    """As Python 3.13 shows, which it refuses and the default does not; a new choice counts more."""
    (clone / ".venv").mkdir()
    lines = [clone, "/usr/bin/python3.13", "3.13.1", "found", "", "an MPI", "cpu", "2.18.1"]
    (clone / ".venv" / ".setup-base").write_text("".join(f"{line}\n" for line in lines))
    given = {"PYTHON": python(tmp_path, "3.13"), "MPICXX": "/nowhere/mpicxx"}
    assert refused(clone, **given).startswith("TensorFlow 2.18.1 needs")
    assert refused(clone, **given, TENSORFLOW="2.21.0").startswith("MPICXX=")
    (clone / ".venv" / ".setup-base").write_text("".join(f"{line}\n" for line in lines[:7]))
    assert refused(clone, **given).startswith("MPICXX=")


def test_gpus_have_a_tensorflow_of_their_own(clone, tmp_path):
    """Whatever was chosen for CPUs before."""
    given = {"PYTHON": python(tmp_path, "3.13"), "GPU": 1}
    assert refused(clone, **given).startswith("TensorFlow 2.18.1 needs")
    (clone / ".venv").mkdir()
    lines = [clone, "/usr/bin/python3.13", "3.13.1", "found", "", "an MPI", "cpu", "2.21.0"]
    (clone / ".venv" / ".setup-base").write_text("".join(f"{line}\n" for line in lines))
    assert refused(clone, **given).startswith("TensorFlow 2.18.1 needs")


# --- the wheel of Horovod -----------------------------------------------------------------------


def kept_in(clone: Path, tensorflow: str) -> str:
    """The folder for the wheel of Horovod."""
    return shell(clone, "find_wheels; echo $WHEELS", tensorflow)


def shell(clone: Path, words: str, tensorflow: str) -> str:
    given = f"PYTHON_BIN=python3 PYTHON_VERSION=3.11.2 MPI_NAME='an MPI' DEVICE=cpu ROOT='{clone}'"
    line = f". '{clone}/launch/horovod.sh'; {given} TENSORFLOW={tensorflow}; {words}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_wheels_of_horovod_are_kept_apart_by_tensorflow_and_patches(clone):
    before = {version: kept_in(clone, version) for version in VERSIONS}
    assert len(set(before.values())) == len(VERSIONS)
    (patch,) = clone.glob("launch/patches/*.patch")
    patch.write_text(patch.read_text() + "\n")
    changed = [version for version in VERSIONS if kept_in(clone, version) != before[version]]
    assert changed == [version for version in VERSIONS if version != "2.18.1"]


def test_what_is_patched_for_which_tensorflow(clone):
    """The one that Horovod was made for is compiled as it is; 2.9 comes before 2.19."""
    for version in ("2.9.0", "2.18.1"):
        assert not shell(clone, "patches", version)
    for version in ("2.19.1", "2.20.0", "2.21.0"):
        assert shell(clone, "patches", version).endswith("/from-tensorflow-2.19.patch")


def test_horovod_is_checked_against_its_sum():
    text = (ROOT / "requirements" / "horovod.txt").read_text()
    assert re.search(r"^horovod==[\d.]+ --hash=sha256:[0-9a-f]{64}$", text, re.M)


def test_a_horovod_of_another_tensorflow_is_refused_in_words(monkeypatch):
    (finding,) = doctor._guarded(doctor._horovod)
    assert finding.text.startswith("0.28.1, built with MPI") and not finding.advice
    monkeypatch.setattr(tf, "__version__", "2.99.0")
    with pytest.raises(
        UserError, match=r"built for TensorFlow 2\.\S+, and this is 2\.99\.0; build"
    ):
        comm.horovod_build()
    (finding,) = doctor._guarded(doctor._horovod)
    assert "2.99.0" in finding.text and finding.advice
    (finding,) = doctor._tensorflow()
    assert "2.18, 2.19, 2.20, 2.21" in finding.advice


# --- pins ---------------------------------------------------------------------------------------


def pins(name: str) -> dict[str, str]:
    """Package → version, in a file of requirements/."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    found = re.findall(r"^([\w.-]+?)==([^\s;]+)", text, re.M)
    return {package.lower().replace("_", "-"): version for package, version in found}


def test_each_tensorflow_pins_the_same_packages_and_none_twice():
    files = {version: pins(f"tensorflow-{version}") for version in VERSIONS}
    cuda = {name for name in files["2.18.1"] if name.startswith("nvidia-")}
    for version, found in files.items():
        assert found["tensorflow"] == found["tensorflow-cpu"] == version
        assert set(found) | cuda == set(files["2.18.1"])
        assert not set(found) & set(pins("constraints"))
    for name in set(files["2.18.1"]) - cuda:
        assert len({found[name] for found in files.values()}) > 1, f"{name}: one for all"


def test_what_has_no_version_in_one_file_has_it_in_another():
    for name in ("cpu", "gpu", "train"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        bare = re.findall(r"^([\w-]+)(?:\[.*\])?(?= *(?:;|#|$))", text, re.M)
        for version in VERSIONS:
            assert set(bare) <= set(pins(f"tensorflow-{version}")), name


def test_set_up_the_package_and_doctor_know_the_same_versions(clone):
    default, gpu = (
        re.search(rf"^{name}_TENSORFLOW=(.*)", (ROOT / "launch/setup.sh").read_text(), re.M)[1]
        for name in ("DEFAULT", "GPU")
    )
    assert default == VERSIONS[-1]
    plain = re.search(r'^PLAIN_TENSORFLOW = "(.*)"', (ROOT / "setup.py").read_text(), re.M)[1]
    newest = [version for version in VERSIONS if not shell(clone, "patches", version)][-1]
    assert plain == gpu == newest
    assert [version.rpartition(".")[0] for version in VERSIONS] == list(doctor._TENSORFLOW)


def test_the_page_of_versions_has_their_pins_and_the_matrix_has_their_rows():
    page = (ROOT / "docs" / "versions.md").read_text()
    for version in VERSIONS:
        row = re.findall(rf"^\| {re.escape(version)}.*", page, re.M)[0]
        assert f"| {pins(f'tensorflow-{version}')['numpy']} |" in row
    rows = matrix("--dry-run").stdout.splitlines()
    assert [row.split(":")[0] for row in rows if row.endswith(":wheel")] == VERSIONS
    assert matrix("--dry-run", "2.18.1:3.11:/x/mpicxx").stdout == "2.18.1:3.11:/x/mpicxx\n"


def test_the_matrix_says_what_it_cannot_run(tmp_path):
    done = matrix("--folder", tmp_path / "clones", "2.18.1:3.99:wheel", "2.18.1:3:/nowhere/mpicxx")
    assert done.returncode == 0 and not list((tmp_path / "clones").iterdir())
    assert [line.split("|")[4].strip() for line in done.stdout.splitlines()[-2:]] == [
        "not run: no python3.99 here",
        "not run: not here",
    ]
    assert "is no TENSORFLOW:PYTHON:MPI" in matrix("2.18.1", status=2).stderr


def matrix(*words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    line = ["bash", ROOT / "tests" / "matrix.sh", *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    return done
