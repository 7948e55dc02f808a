"""Datasets that TensorFlow Datasets has prepared, written here by its own writer."""

import shutil

import numpy as np
import pytest

from ba_dist.data.catalog.prepare import prepare
from ba_dist.errors import CorruptRecord, DataUnavailable

COUNTS = {"train": 37, "test": 11}


def image(split, i):
    return np.random.default_rng([len(split), i]).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def builder_class():
    """CIFAR-10 by name, version and features, with other content."""
    import tensorflow_datasets as tfds

    class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(32, 32, 3)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in COUNTS}

        def _generate_examples(self, split):
            for i in range(COUNTS[split]):
                yield i, {"id": f"{split}_{i}", "image": image(split, i), "label": i % 10}

    return Cifar10


@pytest.fixture(scope="module")
def stored(builder_class, tmp_path_factory):
    """Format → a data directory that holds the dataset in three files of it."""
    import tensorflow_datasets as tfds

    in_three = tfds.download.DownloadConfig(num_shards=3)
    folders = {}
    for file_format in ("array_record", "tfrecord"):
        folders[file_format] = tmp_path_factory.mktemp(file_format)
        builder = builder_class(data_dir=folders[file_format], file_format=file_format)
        builder.download_and_prepare(download_config=in_three)
        assert len(list(folders[file_format].rglob("*train*-of-00003"))) == 3
    return folders


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_prepared_by_tfds(stored, file_format, tmp_path, monkeypatch):
    """`--data-dir` names a folder of TFDS; no network is asked, and every sample is there once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = sorted(stored[file_format].rglob("*"))
    made = prepare("cifar10", str(stored[file_format]))
    assert made.origin == "TensorFlow Datasets"
    for split, count in COUNTS.items():
        images = np.load(made.folder / f"{split}_images.npy")
        labels = np.load(made.folder / f"{split}_labels.npy")
        assert images.shape == (count, 32, 32, 3) and images.dtype == np.uint8
        assert labels.shape == (count,) and labels.dtype == np.int64
        expected = {image(split, i).tobytes(): i % 10 for i in range(count)}
        found = {pixels.tobytes(): label for pixels, label in zip(images, labels, strict=True)}
        assert found == expected
    assert sorted(stored[file_format].rglob("*")) == before


def test_the_file_format_changes_nothing(stored, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digests = {name: prepare("cifar10", str(folder)).digest for name, folder in stored.items()}
    assert digests["array_record"] == digests["tfrecord"]


@pytest.mark.parametrize("damage", ["cut", "flipped"])
@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_corrupt_files_are_not_data_that_cannot_be_had(
    stored, file_format, damage, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(stored[file_format], tmp_path / "data")
    (file,) = (tmp_path / "data").rglob("*train*-00001-of-00003")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    with pytest.raises(CorruptRecord, match=f"{tmp_path}/data/cifar10/3.0.2 is corrupt .*delete"):
        prepare("cifar10", str(tmp_path / "data"))
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_folder_without_the_dataset_and_no_network(tmp_path, monkeypatch):
    """The host of the download has no address here, which is said at once, and nothing is left."""
    from ba_dist.data.catalog import tfds_arrays

    def no_address(host, port):
        raise OSError("Name or service not known")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tfds_arrays.socket, "getaddrinfo", no_address)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with pytest.raises(DataUnavailable) as caught:
        prepare("cifar10", str(tmp_path))
    assert not list(temporary.iterdir())
    message = str(caught.value)
    assert "TensorFlow Datasets: DataError: no network: " in message
    assert "ba-dist data prepare cifar10" in message and "--data-dir" in message
    assert not (tmp_path / "cache" / "ba_dist" / "datasets" / "cifar10").exists()
