"""The index of TFRecord shards is whole and fresh, or it is refused."""

import os
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest

from ba_dist.config import Data
from ba_dist.data.catalog import open_source
from ba_dist.data.catalog.find import find
from ba_dist.data.sources import shard_index, tfrecord
from ba_dist.data.sources.shard_index import SUFFIX, build, find_shards, load, save
from ba_dist.data.sources.tfrecord import frame, scan
from ba_dist.errors import CorruptRecord, DataError

from .. import pictures

SMALL = {"classes": 2, "per_class": 3, "low": 16, "high": 24}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A data directory with shards, and a cache of the test's own beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pictures.make_tfrecords(tmp_path / "data", **SMALL)
    return tmp_path / "data"


def config(place, **changes):
    return Data(dataset="imagenet", data_dir=str(place), **changes)


def test_the_index_is_made_once_beside_the_shards(place, capsys):
    first = find(config(place))
    assert "reading 2 TFRecord shards" in capsys.readouterr().err
    assert {path.name for path in place.glob(f"*{SUFFIX}")} == {
        f"train{SUFFIX}",
        f"validation{SUFFIX}",
    }
    again = find(config(place))
    assert capsys.readouterr() == ("", "")
    for name, split in first.splits.items():
        for key, column in split.arrays.items():
            assert np.array_equal(column, again.splits[name].arrays[key])
    assert "labels from 1" in first.origin and first.info.classes == 2


def test_only_checked_shards_are_in_the_index(place):
    shards = find_shards(place, "train")
    index, corrupt = build(shards)
    offsets = [0, 0]
    for shard, offset, length in zip(
        *(index.columns[name] for name in ("shard", "offset", "length")), strict=True
    ):
        assert offset == offsets[shard]
        offsets[shard] += length + 16
    assert offsets == [path.stat().st_size for path in shards] and not corrupt
    assert index.columns["label"].tolist() == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("first_label", "names", "classes", "text"),
    [
        (1, None, 2, "labels from 1"),
        (0, None, 2, "labels from 0"),
        (0, ("image", "label"), 2, "labels from 0"),
        # Of TFDS's only some classes are there: 0 still is a class.
        (1, ("image", "label"), 3, "labels from 0"),
    ],
)
def test_where_labels_begin(tmp_path, first_label, names, classes, text):
    made = pictures.make_tfrecords(tmp_path, first_label=first_label, names=names, **SMALL)
    found = find(config(tmp_path))
    assert text in found.origin and found.info.classes == classes
    source = open_source(config(tmp_path), "train")
    shift = 1 if classes == 3 else 0
    for i, sample in enumerate(made["train"]):
        assert source.decode(source.read(i))[1] == sample.label + shift


def test_validation_with_labels_that_training_lacks(place, tmp_path):
    pictures.make_tfrecords(tmp_path / "more", **{**SMALL, "classes": 4})
    for path in (tmp_path / "more").glob("validation*"):
        path.rename(place / path.name)
    with pytest.raises(DataError, match=r"labels of validation are 1 … 4, expected 1 … 2"):
        find(config(place))


def test_a_corrupt_record_is_in_the_index_and_refused_when_read(place, capsys):
    shard = place / "train-00001-of-00002"
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    source = open_source(config(place), "train")
    assert f"{shard} at byte 0: its data is corrupt" in capsys.readouterr().err
    assert len(source) == 6
    for i in range(6):
        if i == 3:
            with pytest.raises(CorruptRecord, match="data does not match its checksum"):
                source.read(i)
            assert source.where(i) == f"{shard} at byte 0"
        else:
            source.decode(source.read(i))


def test_damage_that_may_hide_a_class_is_refused(place):
    """All records of class 0 are corrupt: the smallest label that is left would count as it."""
    shard = place / "train-00000-of-00002"
    data = bytearray(shard.read_bytes())
    for record in list(scan(shard)):
        data[record.offset + 40] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=f"{shard} at byte 0: .* 2 others .*may hide a class"):
        find(config(place))


def cut_short(data, record):
    return data[: record.offset + 30]


def with_another_length(data, record):
    at = record.offset
    return data[:at] + struct.pack("<Q", record.length + 1) + data[at + 8 :]


def beyond_the_end(data, record):
    header = frame(b"")[:0] + struct.pack("<Q", 2**60)
    check = struct.pack("<I", tfrecord.masked_crc(header))
    return data[: record.offset] + header + check + data[record.offset + 12 :]


@pytest.mark.parametrize("spoil", [cut_short, with_another_length, beyond_the_end])
def test_a_shard_that_cannot_be_followed_stops_the_indexing(place, spoil):
    shard = place / "train-00001-of-00002"
    third = list(scan(shard))[2]
    shard.write_bytes(spoil(shard.read_bytes(), third))
    with pytest.raises(DataError, match=f"{shard} at byte {third.offset}: .*copy"):
        find(config(place))
    assert not list(place.glob(f"*train*{SUFFIX}"))


def test_other_files_are_no_shards(place):
    shard = place / "train-00000-of-00002"
    for data, why in {
        b"\x1f\x8b" + bytes(100): "compressed",
        b"not of this format at all": "this is no TFRecord file",
        b"": "is empty",
        frame(b"text"): "no tf.train.Example",
        frame(b""): "it holds nothing; expected image/encoded and image/class/label or",
    }.items():
        shard.write_bytes(data)
        with pytest.raises(DataError, match=why) as caught:
            find(config(place))
        assert str(shard) in str(caught.value)


def touch(place):
    path = place / "train-00001-of-00002"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 5 * 10**8))


def grow(place):
    with (place / "train-00001-of-00002").open("ab") as file:
        file.write(b"more")


def shards_of_another_number(place):
    for path in place.glob("train-*"):
        path.unlink()
    pictures.make_tfrecords(place / "other", shards=3, **SMALL)
    for path in (place / "other").glob("train-*"):
        path.rename(place / path.name)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (touch, r"train-00001-of-00002 was written again after .* differs by 0\.500 s"),
        (grow, r"train-00001-of-00002 has \d+ bytes, it had \d+"),
        (shards_of_another_number, "train-00000-of-00002 is missing now"),
    ],
)
def test_changed_shards_are_refused_until_indexed_again(place, change, why):
    find(config(place))
    change(place)
    command = f"run `ba-dist data index imagenet --data-dir {place}`"
    with pytest.raises(DataError, match=why) as caught:
        find(config(place))
    assert str(caught.value).endswith(command)
    (place / f"train{SUFFIX}").unlink()
    if change is not grow:
        assert find(config(place)).splits["train"].count == 6


def test_a_missing_shard_is_named(place):
    (place / "train-00001-of-00002").unlink()
    with pytest.raises(DataError, match=r"1 of 2 shards .* first is train-00001-of-00002; copy"):
        find(config(place))


def test_two_sets_of_shards(place):
    pictures.make_tfrecords(place, shards=3, **SMALL)
    with pytest.raises(DataError, match="holds train in 2 and in 3 shards"):
        find(config(place))


def test_a_corrupt_index_is_refused(place):
    shards = find_shards(place, "train")
    path = save(build(shards)[0], shards)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[at] ^= 4
        for corrupt in (bytes(flipped), whole[:at]):
            path.write_bytes(corrupt)
            with pytest.raises(DataError, match=f"{path}.*run `again`"):
                load(shards, "again")
    path.write_bytes(whole)
    assert load(shards, "again").names == [shard.name for shard in shards]


def test_a_folder_that_cannot_be_written_has_its_index_in_the_cache(place, tmp_path):
    """Also where an index of before is left beside the shards, and is out of date."""
    shards = find_shards(place, "train")
    save(build(shards)[0], shards)
    touch(place)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    with as_another_user(place):
        made = build(shards)[0]
        path = save(made, shards)
        assert path.parent == tmp_path / "cache" / "ba_dist" / "indexes"
        found = load(shards, "again")
    assert np.array_equal(found.times, made.times)


class as_another_user:
    """Without the rights of root, who may write everywhere."""

    def __init__(self, place):
        self.place = place

    def __enter__(self):
        self.place.chmod(0o555)
        self.user = os.geteuid()
        if self.user == 0:
            for folder in [self.place, *self.place.parents][:-2]:
                folder.chmod(folder.stat().st_mode | 0o055)
            os.seteuid(65534)

    def __exit__(self, *error):
        os.seteuid(self.user)
        self.place.chmod(0o755)


INDEX = """
import resource, signal, sys
from pathlib import Path
from ba_dist.data.sources.shard_index import build, find_shards, save
shards = find_shards(Path(sys.argv[1]), "train")
index, _ = build(shards)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))  # the kernel kills one that writes beyond it
save(index, shards)
"""


def test_a_killed_indexing_leaves_nothing_that_is_taken(place):
    done = subprocess.run([sys.executable, "-c", INDEX, str(place)])
    assert done.returncode == -signal.SIGXFSZ
    shards = find_shards(place, "train")
    assert load(shards, "again") is None
    assert find(config(place)).splits["train"].count == 6


def test_nothing_is_left_when_indexing_is_interrupted(place, monkeypatch):
    def interrupted(number):
        raise KeyboardInterrupt

    shards = find_shards(place, "train")
    index = build(shards)[0]
    before = sorted(place.iterdir())
    monkeypatch.setattr(shard_index.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(index, shards)
    assert sorted(place.iterdir()) == before
