"""What every source promises: any sample, in any order, from any thread, and what it cost."""

import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ba_dist.config import Data
from ba_dist.data.catalog import digest, open_source
from ba_dist.data.catalog.found import Subset
from ba_dist.data.sources import ArraySource, ImageInfo, Workers, new_memory
from ba_dist.data.sources.array_record import ArrayRecordSource
from ba_dist.data.sources.examples import TFDS
from ba_dist.data.sources.synthetic import (
    SyntheticColourSource,
    SyntheticJpegSource,
    SyntheticSource,
)

from .. import pictures

COUNT = 30
INFO = ImageInfo("some", (5, 7, 3), 10, (0.5,) * 3, (0.25,) * 3)
PICTURES = ImageInfo("pictures", (0, 0, 3), 3, (0.5,) * 3, (0.25,) * 3)
FILES = {"classes": 3, "per_class": 10, "low": 20, "high": 40}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Name → a function that opens the source anew, and the samples it must give."""
    root = tmp_path_factory.mktemp("sources")
    noise = np.random.default_rng(4)
    images = noise.integers(0, 256, (COUNT, *INFO.image_shape), np.uint8)
    labels = noise.integers(0, 10, COUNT)
    labels[:2] = 0, 2**40  # a label takes all of its 8 bytes
    made = {"arrays": (lambda: ArraySource(INFO, images, labels, "digest"), (images, labels))}
    made["synthetic"] = (lambda: SyntheticSource(INFO, COUNT, seed=3), None)
    made["synthetic-colour"] = (lambda: SyntheticColourSource(INFO, COUNT, seed=3), None)
    made["synthetic-jpeg"] = (lambda: SyntheticJpegSource(PICTURES, COUNT, seed=3), None)

    def decoded(samples):
        return [s.pixels for s in samples["train"]], [s.label for s in samples["train"]]

    for name, make in (("folder", pictures.make_folder), ("tfrecord", pictures.make_tfrecords)):
        config = Data(dataset="pictures", data_dir=str(root / name))
        expected = decoded(make(root / name, **FILES))
        made[name] = (lambda config=config: open_source(config, "train"), expected)
    expected = decoded(pictures.make_array_record(root / "array_record", **FILES))
    files = sorted((root / "array_record").glob("train*"))
    made["array_record"] = (lambda: ArrayRecordSource(PICTURES, files, TFDS.decode), expected)
    # Parts of two: whichever sample of a part is taken, it is the same image.
    twice = ArraySource(INFO, np.repeat(images, 2, axis=0), np.repeat(labels, 2), "digest")
    made["subset"] = (lambda: Subset(twice, COUNT), (images, labels))
    return made


SOURCES = pytest.mark.parametrize(
    "name",
    [
        *(
            "arrays",
            "synthetic",
            "synthetic-colour",
            "synthetic-jpeg",
            "folder",
            "tfrecord",
            "array_record",
            "subset",
        ),
    ],
)


def everything(source):
    return [source.decode(source.read(i)) for i in range(len(source))]


@SOURCES
def test_the_samples_that_were_stored(stored, name):
    make, expected = stored[name]
    source = make()
    assert len(source) == COUNT
    images, labels = zip(*everything(source), strict=True)
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in images)
    assert all(type(label) is int for label in labels)
    if expected is None:
        assert all(0 <= label < source.info.classes for label in labels)
        return
    assert list(labels) == list(expected[1])
    assert all(np.array_equal(a, b) for a, b in zip(images, expected[0], strict=True))


@SOURCES
@settings(max_examples=25)
@given(ids=st.lists(st.integers(0, COUNT - 1), max_size=12))
def test_any_order_and_any_source_decodes_to_the_same(stored, name, ids):
    """Also when one lane reads and another decodes."""
    make, _ = stored[name]
    reader, decoder = make(), make()
    records = [reader.read(i) for i in ids]
    for i, record in zip(ids, records, strict=True):
        assert type(record) is bytes
        image, label = decoder.decode(record)
        again, label_again = reader.decode(decoder.read(i))
        assert np.array_equal(image, again) and label == label_again


@SOURCES
def test_pixels_lie_where_they_are_wanted(stored, name):
    source = stored[name][0]()
    given_out = []

    def allocate(size):
        given_out.append(new_memory(size))
        return given_out[-1]

    for i in (0, 7, COUNT - 1):
        image, _ = source.decode(source.read(i), allocate)
        assert image.nbytes == given_out[-1].nbytes and np.shares_memory(image, given_out[-1])
        assert np.array_equal(image, source.decode(source.read(i))[0])
    assert len(given_out) == 3


@SOURCES
def test_many_threads(stored, name):
    """Eight threads read and decode all samples of one source, each in another order."""
    source = stored[name][0]()
    expected = everything(stored[name][0]())
    begin = threading.Barrier(8)
    wrong = []

    def work(seed):
        begin.wait()
        for i in np.random.default_rng(seed).permutation(COUNT).tolist():
            image, label = source.decode(source.read(i))
            if label != expected[i][1] or not np.array_equal(image, expected[i][0]):
                wrong.append(i)

    before = source.counters.as_dict()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong
    spent = {key: n - before[key] for key, n in source.counters.as_dict().items()}
    assert spent["records_read"] == spent["records_decoded"] == 8 * COUNT


@SOURCES
def test_forked_processes_share_the_files(stored, name):
    """Open files have one position for all processes; nobody may depend on it."""
    source = stored[name][0]()
    expected = [source.read(i) for i in range(COUNT)]
    children = []
    for seed in range(3):
        child = os.fork()
        if child == 0:
            order = np.random.default_rng(seed).integers(0, COUNT, 500).tolist()
            os._exit(0 if all(source.read(i) == expected[i] for i in order) else 1)
        children.append(child)
    assert all(source.read(i % COUNT) == expected[i % COUNT] for i in range(500))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


@SOURCES
def test_counters(stored, name):
    source = stored[name][0]()
    before = source.counters.as_dict()
    records = [source.read(i) for i in (3, 3, 4)]
    source.decode(records[0])
    spent = {key: n - before[key] for key, n in source.counters.as_dict().items()}
    assert (spent["records_read"], spent["records_decoded"]) == (3, 1)
    files = {"folder": 3, "tfrecord": 1, "array_record": 1}
    assert spent["files_opened"] == files.get(name, 0)
    if name in files:
        assert 0 < spent["bytes_read"] <= sum(map(len, records)) + 3 * 16
    if name != "subset":
        assert stored[name][0]().counters.records_read == 0, "sources do not share their counters"


@SOURCES
def test_where_tells_samples_apart_and_contents_tells_sources_apart(stored, name):
    source = stored[name][0]()
    assert len({source.where(i) for i in range(COUNT)}) == COUNT
    assert source.contents and all("\n" not in line for line in source.contents)
    assert digest(source) == digest(stored[name][0]())
    digests = [digest(make()) for key, (make, _) in stored.items() if key != "subset"]
    assert len(set(digests)) == len(digests)


def test_array_record_files_whose_sizes_are_known_are_not_looked_at(stored):
    """Each rank opens the source, but only one asks the file server."""
    known = stored["array_record"][0]()
    files = [Path("gone") / line.split(":")[0] for line in known.contents]
    sizes = np.array([int(line.split()[1]) for line in known.contents])
    told = ArrayRecordSource(PICTURES, files, TFDS.decode, counts=np.array([15, 15]), sizes=sizes)
    assert told.contents == known.contents and len(told) == len(known)


def test_where_names_the_file(stored):
    for name, expected in {
        "folder": r"folder/train/class-001/picture-00012\.JPEG$",
        "tfrecord": r"tfrecord/train-00000-of-00002 at byte \d+$",
        "array_record": r"array_record/train-00000\.array_record, record 12$",
    }.items():
        assert re.search(expected, stored[name][0]().where(12))


def test_synthetic_images_are_noise_named_by_id_and_seed():
    sources = [SyntheticSource(INFO, COUNT, seed=seed) for seed in (3, 4)]
    images = [np.stack([image for image, _ in everything(s)]) for s in sources]
    assert len({image.tobytes() for image in np.concatenate(images)}) == 2 * COUNT
    counts = np.bincount(images[0].reshape(-1), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-4
    assert digest(sources[0]) != digest(sources[1]) != digest(SyntheticSource(INFO, 9, seed=4))
    labels = [label for _, label in everything(sources[0])]
    assert np.bincount(labels).tolist() == [COUNT // 10] * 10


def test_synthetic_jpegs_are_of_the_size_of_imagenets():
    source = SyntheticJpegSource(PICTURES, 1000)
    sizes = [len(source.read(i)) for i in range(100)]
    assert 90_000 < np.mean(sizes) < 120_000 and len(set(sizes)) > 15
    image, label = source.decode(source.read(500))
    assert image.shape == (375, 500, 3) and label == 500 % 3
    # 1/f: an octave of coarse structure has as much energy as an octave of fine structure.
    energy = np.abs(np.fft.rfft2(image.mean(axis=2))) ** 2
    frequency = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.rfftfreq(500)[None])
    octaves = [energy[(frequency > low) & (frequency <= 2 * low)].sum() for low in (0.02, 0.08)]
    assert 0.5 < octaves[0] / octaves[1] < 2


def test_workers_keep_the_order_and_pass_on_what_was_raised():
    for threads in (1, 4):
        workers = Workers(threads)
        assert workers.map(lambda x: x * x, list(range(11))) == [x * x for x in range(11)]
        with pytest.raises(ZeroDivisionError):
            workers.map(lambda x: 1 // (x - 5), list(range(11)))
        workers.close()
