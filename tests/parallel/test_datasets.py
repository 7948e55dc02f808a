"""All ranks open the same dataset; where one has other data, it is named with the difference."""

import json
import os

import numpy as np
import pytest

from ba_dist.data.catalog.prepare import prepare
from ba_dist.data.sources.shard_index import SUFFIX
from tests import pictures
from tests.parallel.ranks import mpirun, program, warm
from tests.unit.test_prepare import put

SMALL = {"classes": 2, "per_class": 3, "low": 16, "high": 24}
FORMS = {"folders": pictures.make_folder, "shards": pictures.make_tfrecords}


def outcomes(folder, *words, ranks=3, run=mpirun):
    program("datasets.py", ranks, folder, *words, run=run)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("ranks", "words"),
    [(3, []), (3, [1]), (4, [2])],
    ids=["one-node", "three-nodes", "two-nodes-of-two"],
)
@pytest.mark.parametrize("form", FORMS)
def test_every_rank_has_the_samples_and_only_rank_0_lists_and_indexes(form, ranks, words, tmp_path):
    FORMS[form](tmp_path / "data", **SMALL)
    found = outcomes(tmp_path, *words, ranks=ranks)
    assert len(found[0]["samples"]) == 5 + 6
    first = found[0].pop("looked")
    assert len(first["listed"]) >= 3
    assert len(first["opened"]) >= (4 if form == "shards" else 0)
    for other in found[1:]:
        assert other.pop("looked") == {"listed": [], "opened": []}
        assert other == found[0]


@pytest.mark.mpi
def test_no_other_node_reads_or_makes_an_index(tmp_path):
    for name in ("data", "data-1", "data-2"):
        pictures.make_tfrecords(tmp_path / name, **SMALL)
    (tmp_path / "data-2" / f"train{SUFFIX}").write_text("damaged")
    found = outcomes(tmp_path, 1)
    assert found[0]["samples"] == found[1]["samples"] == found[2]["samples"]
    assert len(list((tmp_path / "data").glob(f"*{SUFFIX}"))) == 2
    assert not list((tmp_path / "data-1").glob(f"*{SUFFIX}"))


@pytest.mark.mpi
def test_nodes_without_the_prepared_arrays_get_those_of_rank_0(tmp_path):
    (tmp_path / "data").mkdir()
    found = outcomes(tmp_path, 1, "digits")
    assert found[0]["samples"] == found[1]["samples"] == found[2]["samples"]
    assert len(found[0]["samples"]) == 5 + 300
    made = tmp_path.glob("cache-*/ba_dist/datasets/*/info.json")
    assert [path.relative_to(tmp_path).parts[0] for path in made] == ["cache-0"]


@pytest.mark.mpi
@pytest.mark.parametrize("form", FORMS)
def test_other_data_on_one_node_is_named(form, tmp_path, promise):
    for name in ("data", "data-2"):
        FORMS[form](tmp_path / name, **SMALL)
    if form == "folders":
        name, here = "train/class-001/picture-00004.JPEG", "missing"
        (tmp_path / "data-2" / name).unlink()
    else:
        name = "train-00001-of-00002"
        shard = tmp_path / "data-2" / name
        shard.write_bytes(shard.read_bytes() * 2)
        here = f"{shard.stat().st_size} bytes"
    there = f"{(tmp_path / 'data' / name).stat().st_size} bytes"
    for result in outcomes(tmp_path, 2, ranks=4):
        assert result["agreed"]
        assert f"rank 2 on {os.uname().nodename} has other data than rank 0" in result["error"]
        assert f"  rank 2: {name}: {here}\n  rank 0: {name}: {there}\n" in result["error"]
        assert result["error"].endswith(f"rank 2 looks in {tmp_path}/data-2")
    promise(7, "other data on one node: the rank and the first difference are named", 1, 1)


@pytest.mark.mpi
@pytest.mark.parametrize("form", FORMS)
def test_data_that_one_node_lacks_is_said_on_all(form, tmp_path):
    FORMS[form](tmp_path / "data", **SMALL)
    (tmp_path / "data-1").mkdir()
    names = {"folders": "train/class-000/picture-00000.JPEG", "shards": "train-00000-of-00002"}
    for result in outcomes(tmp_path, 1):
        assert result["agreed"]
        assert f"\n  rank 1: {names[form]}: missing\n" in result["error"]
        assert f"rank 1 looks in {tmp_path}/data-1" in result["error"]


@pytest.mark.mpi
def test_quickstart_does_not_turn_other_data_on_one_node_into_digits(tmp_path):
    for name in ("data", "data-1"):
        pictures.make_folder(tmp_path / name, **SMALL)
    with (tmp_path / "data-1" / "val" / "class-001" / "picture-00005.JPEG").open("ab") as file:
        file.write(b"more")
    for result in outcomes(tmp_path, 1, "train", run=warm):
        assert result["agreed"] and "rank 1: val/class-001/picture-00005.JPEG" in result["error"]
        assert "has other data than rank 0" in result["error"]


@pytest.mark.mpi
def test_quickstart_does_not_turn_corrupt_data_into_digits(tmp_path, monkeypatch):
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
    done = warm(2, *words, "--run-dir", tmp_path / "run", check=False)
    assert done.returncode == 1 and "digits" not in done.stdout
    assert f"{path.parent} is corrupt (its content does not match its digest)" in done.stderr
