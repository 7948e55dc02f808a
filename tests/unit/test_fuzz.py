"""A thousand corrupt files: each is refused by name, or gives what was written; nothing else."""

import collections
import itertools
import time

import numpy as np
import pytest
from PIL import Image

from ba_dist.config import Data
from ba_dist.data.catalog import open_source
from ba_dist.data.sources import ImageInfo
from ba_dist.data.sources.array_record import ArrayRecordSource
from ba_dist.data.sources.examples import TFDS
from ba_dist.data.sources.shard_index import SUFFIX
from ba_dist.errors import CorruptRecord, DataError

from .. import pictures

INFO = ImageInfo("some", (0, 0, 3), 2, (0.5,) * 3, (0.25,) * 3)
SMALL = {"classes": 2, "per_class": 3, "low": 16, "high": 24}


def damage(whole, draw):
    """Cut short, or a bit flipped, or five; half of the time near the beginning."""
    kind = draw.integers(3)
    if kind == 0:
        return whole[: draw.integers(len(whole))]
    corrupt = bytearray(whole)
    end = len(whole) if draw.integers(2) else min(len(whole), 200)
    for place in draw.integers(0, end, 1 if kind == 1 else 5):
        corrupt[place] ^= 1 << draw.integers(8)
    return bytes(corrupt)


def outcome(open_corrupt, expected, file, checksummed):
    """What became of a corrupt file: a word for counting; fails when it is not allowed."""
    try:
        source = open_corrupt()
    except DataError as error:
        assert str(file) in str(error), error
        return "refused at opening"
    assert len(source) == len(expected)
    refused = 0
    for i, sample in enumerate(expected):
        try:
            record = source.read(i)
            image, label = source.decode(record)
        except CorruptRecord as error:
            assert str(file) in source.where(i), error
            refused += 1
            continue
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        assert label == sample.label
        if checksummed:
            assert np.array_equal(image, sample.pixels)
    return f"{refused} of {len(expected)} samples refused"


def tfrecord(tmp_path, indexed):
    expected = pictures.make_tfrecords(tmp_path, shards=1, **SMALL)["train"]
    file = tmp_path / "train-00000-of-00001"
    config = Data(dataset="pictures", data_dir=str(tmp_path))
    source = open_source(config, "train")
    index = tmp_path / f"train{SUFFIX}"

    def open_corrupt():
        if indexed:
            return source
        index.unlink(missing_ok=True)
        return open_source(config, "train")

    return file, open_corrupt, expected


def array_record(tmp_path):
    expected = pictures.make_array_record(tmp_path, files=1, **SMALL)["train"]
    file = tmp_path / "train-00000.array_record"
    return file, lambda: ArrayRecordSource(INFO, [file], TFDS.decode), expected


def folder(tmp_path, png):
    expected = pictures.make_folder(tmp_path, classes=1, per_class=1, low=16, high=24)["train"]
    file = tmp_path / "train" / "class-000" / "picture-00000.JPEG"
    if png:
        Image.fromarray(expected[0].pixels).save(file, "PNG")
    source = open_source(Data(dataset="pictures", data_dir=str(tmp_path)), "train")
    return file, lambda: source, expected


@pytest.mark.parametrize(
    ("name", "make", "files", "checksummed"),
    [
        ("TFRecord with its index", lambda path: tfrecord(path, True), 250, True),
        ("TFRecord without an index", lambda path: tfrecord(path, False), 150, True),
        ("ArrayRecord", array_record, 250, True),
        ("JPEG", lambda path: folder(path, False), 350, False),
        ("PNG under the name of a JPEG", lambda path: folder(path, True), 100, False),
    ],
)
def test_corrupt_files(tmp_path, name, make, files, checksummed, capsys, promise):
    file, open_corrupt, expected = make(tmp_path)
    whole = file.read_bytes()
    counts = collections.Counter()
    begun = time.monotonic()
    for seed in itertools.count():
        corrupt = damage(whole, np.random.default_rng([files, seed]))
        if corrupt == whole:
            continue
        file.write_bytes(corrupt)
        counts[outcome(open_corrupt, expected, file, checksummed)] += 1
        if counts.total() == files:
            break
    with capsys.disabled():
        found = ", ".join(f"{text}: {count}" for text, count in sorted(counts.items()))
        print(f"\n{name}: {files} corrupt files in {time.monotonic() - begun:.1f} s; {found}")
    assert len(counts) > 1
    if checksummed:
        # Bits that no checksum covers (padding, unused space) are all that may go unnoticed.
        assert counts[f"0 of {len(expected)} samples refused"] <= files // 2
    text = "never changed bytes passed on" if checksummed else "no other error, no hang"
    promise(8, f"{name}, cut or changed: {text}", counts.total(), files)
