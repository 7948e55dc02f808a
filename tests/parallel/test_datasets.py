"""All ranks open the same dataset; where one has other data, it is named with the difference."""

import json
import os

import numpy as np
import pytest

from ba_dist.data.prepare import prepare
from tests import pictures
from tests.parallel.ranks import mpirun, program
from tests.unit.test_prepare import put

SMALL = {"classes": 2, "per_class": 3, "low": 16, "high": 24}
FORMS = {"folders": pictures.make_folder, "shards": pictures.make_tfrecords}


def outcomes(folder, *words):
    program("datasets.py", 3, folder, *words)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(3)]


@pytest.mark.mpi
@pytest.mark.parametrize("words", [[], [1]], ids=["one-node", "three-nodes"])
@pytest.mark.parametrize("form", FORMS)
def test_every_rank_has_the_samples(form, words, tmp_path):
    FORMS[form](tmp_path / "data", **SMALL)
    found = outcomes(tmp_path, *words)
    assert found[0] == found[1] == found[2]
    assert len(found[0]["digests"]) == 5 + 6


@pytest.mark.mpi
@pytest.mark.parametrize("form", FORMS)
def test_other_data_on_one_node_is_named(form, tmp_path, promise):
    for name in ("data", "data-2"):
        FORMS[form](tmp_path / name, **SMALL)
    if form == "folders":
        (tmp_path / "data-2" / "train" / "class-001" / "picture-00004.JPEG").unlink()
        line = "train: class-001: {} pictures"
        here, there = line.format(2), line.format(3)
    else:
        shard = tmp_path / "data-2" / "train-00001-of-00002"
        shard.write_bytes(shard.read_bytes() * 2)
        size = (tmp_path / "data" / shard.name).stat().st_size
        here, there = (f"train: {shard.name}: {n} bytes" for n in (2 * size, size))
    for result in outcomes(tmp_path, 1):
        assert result["agreed"]
        assert f"rank 2 on {os.uname().nodename} has other data than rank 0" in result["error"]
        assert f"rank 2: {here}\n" in result["error"] and f"rank 0: {there}\n" in result["error"]
    promise(7, "other data on one node: the rank and the first difference are named", 1, 1)


@pytest.mark.mpi
def test_data_that_one_node_lacks_is_said_on_all(tmp_path):
    pictures.make_folder(tmp_path / "data", **SMALL)
    (tmp_path / "data-1").mkdir()
    for result in outcomes(tmp_path, 1):
        assert result["agreed"] and "rank 1: " in result["error"]
        assert "data-1 holds none of the forms of imagenet" in result["error"]


@pytest.mark.mpi
def test_quickstart_does_not_turn_other_data_on_one_node_into_digits(tmp_path):
    for name in ("data", "data-1"):
        pictures.make_folder(tmp_path / name, **SMALL)
    (tmp_path / "data-1" / "train" / "class-001" / "picture-00004.JPEG").unlink()
    for result in outcomes(tmp_path, 1, "quickstart"):
        assert result["agreed"] and "rank 1 on" in result["error"]
        assert "has other data than rank 0" in result["error"]


@pytest.mark.mpi
def test_quickstart_does_not_turn_damaged_data_into_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = np.zeros((100, 28, 28), np.uint8)
    arrays = {"train_images": images, "test_images": images}
    arrays |= {
        f"{split}_labels": np.arange(100, dtype=np.uint8) % 10 for split in ("train", "test")
    }
    monkeypatch.setenv("BA_DIST_DATA", put(tmp_path / "data", arrays))
    path = prepare("fashion_mnist").folder / "train_images.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    words = ["train", "quickstart", "--train-samples", 64, "--steps", 1]
    done = mpirun(2, *words, "--run-dir", tmp_path / "run", check=False)
    assert done.returncode == 1 and "digits" not in done.stdout
    assert f"{path.parent} is damaged (its content does not match its digest)" in done.stderr
