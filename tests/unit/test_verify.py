"""`ba-dist data index` and `verify`: every record is looked at, every corrupt one named."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ba_dist.config import Data
from ba_dist.data.catalog import open_source

from .. import pictures
from .test_cli import refused

SMALL = {"classes": 2, "per_class": 50, "low": 16, "high": 24}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    return path


def test_clean_data(ba_dist, tmp_path):
    pictures.make_folder(tmp_path / "a", **SMALL)
    pictures.make_tfrecords(tmp_path / "b", **SMALL)
    for place in ("a", "b"):
        status, out, _ = ba_dist("data", "verify", "imagenet", "--data-dir", tmp_path / place)
        assert status == 0 and "200 samples of imagenet, none corrupt; from the" in out
    assert ba_dist("data", "verify", "digits")[0] == 0


def test_every_bad_record_is_named(ba_dist, tmp_path):
    """A corrupt record, one whose image was corrupt before it was stored, and their neighbours."""
    pictures.make_tfrecords(tmp_path, **SMALL)
    source = open_source(Data(dataset="pictures", data_dir=str(tmp_path)), "validation")
    corrupt = {source.where(i) for i in (3, 64, 99)}
    for place in corrupt:
        shard, offset = place.split(" at byte ")
        path = tmp_path / shard
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        flip(path, int(offset) + 100)
        os.utime(path, ns=times)
    status, out, _ = ba_dist("data", "verify", "pictures", "--data-dir", tmp_path)
    lines = out.splitlines()
    assert status == 1 and "200 samples of pictures, 3 corrupt" in lines[-1]
    assert lines[:-1] == sorted(
        (f"{place}: its data does not match its checksum" for place in corrupt),
        key=lambda line: (line.split(" at byte ")[0], int(line.split()[3].rstrip(":"))),
    )


def test_bad_pictures_in_folders(ba_dist, tmp_path):
    pictures.make_folder(tmp_path, **SMALL)
    folder = tmp_path / "train" / "class-001"
    cut, other = sorted(folder.iterdir())[4:6]
    cut.write_bytes(cut.read_bytes()[:-100])
    other.write_text("<html>not found")
    status, out, _ = ba_dist("data", "verify", "imagenet", "--data-dir", tmp_path)
    lines = out.splitlines()
    assert status == 1 and len(lines) == 3
    assert lines[0].startswith(f"{cut}: the JPEG cannot be decoded: ")
    assert lines[1].startswith(f"{other}: 15 bytes are no image that is known")


def test_index_again_after_a_change(ba_dist, tmp_path):
    pictures.make_tfrecords(tmp_path, **SMALL)
    words = ("imagenet", "--data-dir", tmp_path)
    status, out, _ = ba_dist("data", "index", *words)
    assert status == 0 and f"{tmp_path}/train.ba_dist-index: 100 records in 2 shards" in out
    assert f"{tmp_path}/validation.ba_dist-index: 100 records in 2 shards" in out
    shard = flip(tmp_path / "train-00000-of-00002", 100)
    refused(ba_dist("data", "verify", *words), str(shard), "run `ba-dist data index", status=1)
    status, out, _ = ba_dist("data", "index", *words)
    assert status == 0 and f"{shard} at byte 0: its data is corrupt\n" in out
    status, out, _ = ba_dist("data", "verify", *words)
    assert status == 1 and f"{shard} at byte 0: its data does not match its checksum\n" in out


def test_nothing_to_index(ba_dist, tmp_path):
    pictures.make_folder(tmp_path, classes=1, per_class=1)
    for words in (["pictures", "--data-dir", tmp_path], ["digits"], ["synthetic"]):
        refused(ba_dist("data", "index", *words), "there is nothing to index", status=1)


def test_prepare_looks_at_pictures(ba_dist, tmp_path):
    pictures.make_tfrecords(tmp_path, **SMALL)
    status, out, _ = ba_dist("data", "prepare", "imagenet", "--data-dir", tmp_path)
    assert status == 0 and "100 samples to train on, 100 to evaluate" in out
    assert (tmp_path / "train.ba_dist-index").exists()


def reads_shards(pid):
    """Whether a process has a shard open."""
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "-of-00060" in str(path.readlink()):
                return True
        except OSError:  # closed meanwhile
            continue
    return False


@pytest.mark.parametrize("command", ["index", "verify"])
def test_control_c_ends_at_once_and_leaves_nothing(tmp_path, command):
    place = tmp_path / "data"
    pictures.make_tfrecords(place, classes=3, per_class=400, shards=60)
    before = sorted(place.iterdir())
    words = ["-m", "ba_dist", "data", command, "pictures", "--data-dir", str(place)]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE) as process:
        while process.poll() is None and not reads_shards(process.pid):
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        process.communicate(timeout=60)
        assert time.monotonic() - begun < 10
    # A machine that is quick enough has done its work before it is told to stop.
    assert process.returncode in (0, 130, -signal.SIGINT)
    left = set(place.iterdir()) - set(before)
    assert all(path.name in ("train.ba_dist-index", "validation.ba_dist-index") for path in left)
