"""TFRecord is read as TensorFlow writes it, from few files that are kept open."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ba_dist.config import Data
from ba_dist.data.catalog import open_source
from ba_dist.data.sources import files, tfrecord
from ba_dist.data.sources.examples import TFDS, parse
from ba_dist.data.sources.tfrecord import FOOTER, HEADER, frame, scan, unframe
from ba_dist.errors import CorruptRecord

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


# --- the format -----------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_tensorflow_reads_and_writes_the_same(tmp_path_factory, records):
    import tensorflow as tf

    path = tmp_path_factory.mktemp("tfrecord") / "file"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    assert path.read_bytes() == b"".join(map(frame, records))
    found = list(scan(path))
    assert [record.data for record in found] == records
    for record in found:
        framed = path.read_bytes()[record.offset :][: HEADER + record.length + FOOTER]
        assert unframe(framed, record.length) == record.data


def test_every_bit_counts():
    framed = frame(b"some data")
    for bit in range(8 * len(framed)):
        flipped = bytearray(framed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptRecord, match="does not match its checksum"):
            unframe(bytes(flipped), 9)
    for length in range(len(framed)):
        with pytest.raises(
            CorruptRecord, match=f"the file ends {length} bytes into a record of 25"
        ):
            unframe(framed[:length], 9)


def test_examples_are_tensorflows():
    import tensorflow as tf

    sample = pictures.samples("train", 1, 1, 16, 20)[0]
    data = pictures.example(sample, "image", "label", 7)
    features = tf.train.Example.FromString(data).features.feature
    assert features["image"].bytes_list.value[0] == sample.jpeg
    assert features["label"].int64_list.value[:] == [7]
    features["label"].int64_list.value[:] = [-3]
    features["scores"].float_list.value[:] = [1.5]
    again = tf.train.Example(features=tf.train.Features(feature=dict(features)))
    found = parse(again.SerializeToString())
    assert found["label"].int64_list.value[:] == [-3] and "scores" in found


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: f["label"].int64_list.value.append(1), "2 numbers in 'label', expected one"),
        (lambda f: f["label"].Clear(), "0 numbers in 'label'"),
        (lambda f: f["image"].Clear(), "0 images in 'image'"),
        (lambda f: f["label"].int64_list.value.__setitem__(0, -1), r"label is -1, expected 0 … 2"),
        (lambda f: f["label"].int64_list.value.__setitem__(0, 3), r"label is 3, expected 0 … 2"),
    ],
)
def test_examples_that_are_no_sample(change, why):
    from dataclasses import replace

    from ba_dist.data.sources.examples import _example

    sample = pictures.samples("train", 1, 1, 16, 20)[0]
    message = _example().FromString(pictures.example(sample, "image", "label", 0))
    change(message.features.feature)
    with pytest.raises(CorruptRecord, match=why):
        replace(TFDS, classes=3).decode(message.SerializeToString())
    with pytest.raises(CorruptRecord, match="no tf.train.Example"):
        TFDS.decode(b"\xff" * 20)


# --- files kept open ------------------------------------------------------------------------------


def test_few_files_are_open_at_a_time(place, monkeypatch):
    """With room for two of many shards, eight threads still read what is there."""
    pictures.make_tfrecords(place, shards=6, classes=3, per_class=4, low=16, high=20)
    for path in place.glob("*-of-00002"):
        path.unlink()
    monkeypatch.setattr(tfrecord, "open_files_limit", lambda: 2)
    source = open_source(config(place), "train")
    expected = [source.read(i) for i in range(len(source))]
    wrong = []

    def work(seed):
        for i in np.random.default_rng(seed).integers(0, len(source), 300).tolist():
            wrong.extend([i] * (source.read(i) != expected[i]))

    def open_files():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong and open_files() <= before
    assert source.counters.files_opened > 6


def test_a_limit_below_what_the_system_allows():
    import resource

    assert 8 <= files.open_files_limit() <= resource.getrlimit(resource.RLIMIT_NOFILE)[0]
