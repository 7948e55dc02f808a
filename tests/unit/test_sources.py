"""Records: what is read is decoded to the same sample, in any part and order, and counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ba_dist.data.sources import ArraySource, DatasetInfo, SyntheticSource

COUNT = 50
INFO = DatasetInfo("some", (5, 7, 3), 10, (0.5,) * 3, (0.25,) * 3)


def arrays():
    noise = np.random.default_rng(4)
    images = noise.integers(0, 256, (COUNT, *INFO.image_shape), np.uint8)
    labels = noise.integers(0, 10, COUNT)
    labels[:2] = 0, 2**40  # a label takes all of its 8 bytes
    return ArraySource(INFO, images, labels, "digest")


def synthetic():
    return SyntheticSource(INFO, COUNT, seed=3)


SOURCES = pytest.mark.parametrize("make", [arrays, synthetic])
ids = st.lists(st.integers(0, COUNT - 1), max_size=20).map(
    lambda values: np.array(values, np.int64)
)


@SOURCES
@given(ids=ids, cut=st.integers(0, 20))
def test_any_part_in_any_order_decodes_to_the_same(make, ids, cut):
    """Also when one lane reads and another decodes, and when a lane has nothing to do."""
    all_images, all_labels = make().decode(make().read(np.arange(COUNT)))
    records = make().read(ids[:cut]) + make().read(ids[cut:])
    assert all(isinstance(record, bytes) for record in records)
    images, labels = make().decode(records)
    assert len(images) == len(labels) == len(ids) and labels.dtype == np.int64
    for i, image, label in zip(ids, images, labels, strict=True):
        assert image.dtype == np.uint8 and image.shape == INFO.image_shape
        assert np.array_equal(image, all_images[i]) and label == all_labels[i]


def test_arrays_come_back_as_they_are():
    source = arrays()
    images, labels = source.decode(source.read(np.arange(COUNT)))
    assert np.array_equal(np.stack(images), source.images)
    assert np.array_equal(labels, source.labels)


@SOURCES
def test_counters(make):
    source = make()
    records = source.read(np.array([3, 3, 4]))
    source.read(np.array([], np.int64))
    source.decode(records[:2])
    assert (source.counters.records_read, source.counters.records_decoded) == (3, 2)
    assert make().counters.records_read == 0, "sources do not share their counters"


def test_synthetic_images_are_noise_named_by_id_and_seed():
    sources = [synthetic(), SyntheticSource(INFO, COUNT, seed=4)]
    images = [np.stack(s.decode(s.read(np.arange(COUNT)))[0]) for s in sources]
    assert len({image.tobytes() for image in np.concatenate(images)}) == 2 * COUNT
    counts = np.bincount(images[0].reshape(-1), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-4
    assert sources[0].digest != sources[1].digest != SyntheticSource(INFO, 9, seed=4).digest
    labels = sources[0].decode(sources[0].read(np.arange(COUNT)))[1]
    assert np.bincount(labels).tolist() == [COUNT // 10] * 10
