"""`ba-dist` in one process on a machine without network and data."""

import os
import subprocess
import sys

import pytest

PYTHON = [sys.executable, "-m", "ba_dist"]


@pytest.fixture
def without_data(tmp_path):
    """Runs `ba-dist WORDS` without network and Fashion-MNIST; apt-get only notes its calls."""
    if subprocess.run(["unshare", "-rnm", "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no namespaces")
    hidden = "/usr/share/datasets/fashion-mnist"
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/apt\necho no such package >&2\nexit 1\n')
    apt.chmod(0o755)
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PATH": f"{apt.parent}:{os.environ['PATH']}",
    }
    script = f'if [ -d {hidden} ]; then mount -t tmpfs none {hidden}; fi; exec "$@"'

    def run(*words):
        command = ["unshare", "-rnm", "sh", "-c", script, "sh", *PYTHON, *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)

    return run


def test_without_any_data_quickstart_says_so_and_trains_on_digits(without_data, tmp_path):
    done = without_data("train", "quickstart", "--steps", "3", "--run-dir", f"{tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert "Training on scikit-learn's digits instead" in done.stdout
    assert "no network" in done.stdout and "Traceback" not in done.stderr
    assert "only `ba-dist data prepare fashion_mnist` installs it" in done.stdout
    done = without_data("train", "resnet44-cifar10", "--steps", "1")
    assert done.returncode == 1 and "ba-dist data prepare cifar10" in done.stderr


def test_only_data_prepare_installs_a_package(without_data, tmp_path):
    called = tmp_path / "apt"
    without_data("train", "quickstart", "--steps", "1", "--run-dir", f"{tmp_path}/run")
    without_data("plot", "augmentations", "quickstart", "--output", f"{tmp_path}/page.png")
    assert not called.exists()
    done = without_data("data", "prepare", "fashion_mnist")
    assert done.returncode == 1 and "dataset-fashion-mnist: DataError: no such" in done.stderr
    assert "install --yes --no-install-recommends dataset-fashion-mnist" in called.read_text()
