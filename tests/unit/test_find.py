"""Names → what is found of a dataset, in whatever form it is there, and how it is cut down."""

import dataclasses
import re

import numpy as np
import pytest

from ba_dist.config import Data
from ba_dist.data.catalog import digest, open_source
from ba_dist.data.catalog.find import find
from ba_dist.data.catalog.found import open_split
from ba_dist.errors import ConfigError, DataError
from ba_dist.recipes import imagenet
from ba_dist.rules.order import subset_ids

from .. import pictures

SMALL = {"classes": 2, "per_class": 3, "low": 16, "high": 24}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BA_DIST_DATA", raising=False)


def config(place, name="imagenet", **changes):
    return Data(dataset=name, data_dir=str(place), **changes)


def assert_samples(found, made):
    for split, key in (("train", "train"), ("validation", "val")):
        source = open_split(found.info, found.splits[split])
        assert len(source) == len(made[key])
        for i, sample in enumerate(made[key]):
            image, label = source.decode(source.read(i))
            assert label == sample.label and np.array_equal(image, sample.pixels)


def folders(place):
    return pictures.make_folder(place, **SMALL), "the folders in "


def folders_called_validation(place):
    made = pictures.make_folder(place, **SMALL)
    (place / "val").rename(place / "validation")
    return made, "the folders in "


def shards(place):
    return pictures.make_tfrecords(place, **SMALL), "the TFRecord shards in "


def shards_called_val(place):
    made = pictures.make_tfrecords(place, **SMALL)
    for path in place.glob("validation-*"):
        path.rename(place / path.name.replace("validation", "val"))
    return made, "the TFRecord shards in "


def shards_in_folders(place):
    made = pictures.make_tfrecords(place, **SMALL)
    for split in ("train", "validation"):
        (place / split).mkdir()
        for path in place.glob(f"{split}-*"):
            path.rename(place / split / path.name)
    return made, "the TFRecord shards in "


@pytest.mark.parametrize("name", ["imagenet", "pictures"])
@pytest.mark.parametrize(
    "make",
    [folders, folders_called_validation, shards, shards_called_val, shards_in_folders],
    ids=lambda make: make.__name__,
)
def test_whatever_is_there_is_found(tmp_path, make, name):
    made, origin = make(tmp_path / "data")
    found = find(config(tmp_path / "data", name))
    assert found.origin.startswith(f"{origin}{tmp_path / 'data'} (2 classes")
    assert found.info.name == name and found.info.image_shape == (0, 0, 3)
    assert found.info.classes == 2 and found.info.mean == (0.485, 0.456, 0.406)
    folders = sorted(path.name for path in (tmp_path / "data" / "train").glob("*/"))
    assert found.info.class_names == (tuple(folders) if "folders" in origin else ())
    assert_samples(found, made)


@pytest.mark.parametrize(
    "make",
    [folders, folders_called_validation, shards, shards_in_folders],
    ids=lambda m: m.__name__,
)
def test_what_was_found_opens_where_another_node_has_it(tmp_path, make):
    """Without a look at the place where it was found, which is gone."""
    made, _ = make(tmp_path / "here")
    found = find(config(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    splits = {
        name: dataclasses.replace(split, root=tmp_path / "there")
        for name, split in found.splits.items()
    }
    assert_samples(dataclasses.replace(found, splits=splits), made)
    for split in splits.values():
        assert all(path.is_file() for path in split.paths(split.sample))


def test_a_sample_of_files_is_small_and_spread_from_the_first_to_the_last(tmp_path):
    for split, count in (("train", 1000), ("val", 64)):
        for i in range(count):
            path = tmp_path / split / f"{i // 100}" / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    splits = find(config(tmp_path)).splits
    numbers = [int(name[-8:-4]) for name in splits["train"].sample]
    assert len(numbers) == 64 and (numbers[0], numbers[-1]) == (0, 999)
    assert set(np.diff(numbers)) <= {15, 16}
    assert [int(name[-8:-4]) for name in splits["validation"].sample] == list(range(64))


def test_nothing_there_lists_what_was_looked_for(tmp_path):
    with pytest.raises(DataError) as caught:
        find(config(tmp_path))
    for part in (
        f"{tmp_path}/train/CLASS/NAME.JPEG",
        f"{tmp_path}/train-00000-of-01024",
        f"{tmp_path}/imagenet2012: TensorFlow Datasets",
        "image-net.org",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=re.escape("pictures needs --data-dir (or $BA_DIST_DATA)")):
        find(Data(dataset="pictures"))
    with pytest.raises(DataError, match="the data directory .*gone is not there"):
        find(config(tmp_path / "gone"))


def test_half_of_it_there(tmp_path):
    pictures.make_folder(tmp_path / "a", **SMALL)
    (tmp_path / "a" / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"a folder per class, but there is no .*a/val beside it"):
        find(config(tmp_path / "a"))
    pictures.make_tfrecords(tmp_path / "b", **SMALL)
    for path in (tmp_path / "b").glob("train-*"):
        path.unlink()
    with pytest.raises(DataError, match="holds TFRecord shards, but no train-00000-of-…"):
        find(config(tmp_path / "b"))


@pytest.mark.parametrize("make", [folders, shards], ids=lambda make: make.__name__)
def test_a_subset_takes_an_even_share(tmp_path, make):
    made, _ = make(tmp_path)
    limits = {"train_samples": 4, "val_samples": 1}
    for split, key, count in (("train", "train", 4), ("validation", "val", 1)):
        source = open_source(config(tmp_path, **limits), split)
        assert len(source) == count
        for i, original in enumerate(subset_ids(np.arange(count), count, 6).tolist()):
            image, label = source.decode(source.read(i))
            assert label == made[key][original].label
            assert np.array_equal(image, made[key][original].pixels)
    for flag, changes in {
        "--train-samples 7": {"train_samples": 7},
        "--val-samples 9": {"val_samples": 9},
    }.items():
        with pytest.raises(
            ConfigError, match=f"{flag} is more than imagenet has; use at most {flag.split()[0]} 6"
        ):
            open_source(config(tmp_path, **changes), "train")


def test_a_subset_of_arrays_takes_the_same_rows(tmp_path):
    whole = open_source(Data(dataset="digits"), "train")
    source = open_source(Data(dataset="digits", train_samples=100), "train")
    rows = subset_ids(np.arange(100), 100, len(whole))
    assert [source.read(i) for i in range(100)] == [whole.read(int(row)) for row in rows]
    assert digest(source) != digest(whole)


def test_the_laptop_line_of_the_imagenet_recipe_meets_every_class(tmp_path):
    """Classes of a hundredth of ImageNet's sizes (732 … 1300 and 50 images), sorted as ever."""
    text = imagenet.__doc__
    wanted = [int(re.search(rf"--{split}-samples\s+(\d+)", text)[1]) for split in ("train", "val")]
    sizes = np.random.default_rng(0).choice([8, *[13] * 9], 1000)
    for split, counts in (("train", sizes), ("val", [1] * 1000)):
        for label, count in enumerate(counts):
            folder = tmp_path / split / f"n{label:08d}"
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.JPEG").touch()
    limits = {"train_samples": wanted[0], "val_samples": wanted[1]}
    for split in ("train", "validation"):
        source = open_source(config(tmp_path, **limits), split)
        labels = [np.frombuffer(source.read(i), np.int64, 1)[0] for i in range(len(source))]
        assert labels == sorted(labels) and len(set(labels)) == 1000


@pytest.mark.parametrize("name", ["synthetic", "synthetic-colour", "synthetic-jpeg", "digits"])
def test_what_needs_no_place(name):
    for split, changes in (("train", {"train_samples": 12}), ("validation", {"val_samples": 12})):
        source = open_source(Data(dataset=name, image_size=24, **changes), split)
        image, label = source.decode(source.read(11))
        assert len(source) == 12 and 0 <= label < source.info.classes
        assert source.info.image_shape in (image.shape, (0, 0, 3))
    sources = [open_source(Data(dataset=name), split) for split in ("train", "validation")]
    images = [source.decode(source.read(0))[0] for source in sources]
    assert not np.array_equal(*images) and len(sources[0]) > len(sources[1])


# --- TensorFlow Datasets --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def builders():
    """Small datasets, as if somebody had written them for TensorFlow Datasets."""
    import tensorflow_datasets as tfds

    class Base(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        SPLITS = ("train", "test")
        KEYS = ("image", "label")
        CLASSES = {"num_classes": 5}

        def _info(self):
            image, label = self.KEYS
            features = {
                "file_name": tfds.features.Text(),
                image: tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                label: tfds.features.ClassLabel(**self.CLASSES),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=self.KEYS if self.KEYS != ("image", "label") else None,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in self.SPLITS}

        def _generate_examples(self, split):
            key = "train" if split == "train" else "val"
            image, label = self.KEYS
            for i, sample in enumerate(pictures.samples(key, 3, 4, 16, 24)):
                name = f"{split}_{i}"
                yield i, {"file_name": name, image: sample.pixels, label: sample.label}

    class Flowers(Base, skip_registration=True):
        pass

    class Birds(Base, skip_registration=True):
        SPLITS = ("train", "validation", "test")
        KEYS = ("picture", "species")
        CLASSES = {"names": list("abcde")}

    class Imagenet2012(Base, skip_registration=True):
        SPLITS = ("train", "validation")

    class Lonely(Base, skip_registration=True):
        SPLITS = ("train",)

    return {"flowers": Flowers, "birds": Birds, "imagenet2012": Imagenet2012, "lonely": Lonely}


@pytest.fixture(scope="module")
def prepared(builders, tmp_path_factory):
    """(dataset, file format) → the folder of TensorFlow Datasets that holds it in two files."""
    import tensorflow_datasets as tfds

    folders = {}

    def prepare(name, file_format):
        if (name, file_format) not in folders:
            folder = tmp_path_factory.mktemp(f"{name}-{file_format}")
            builder = builders[name](data_dir=folder, file_format=file_format)
            in_two = tfds.download.DownloadConfig(num_shards=2)
            builder.download_and_prepare(download_config=in_two)
            folders[name, file_format] = folder
        return folders[name, file_format]

    return prepare


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
@pytest.mark.parametrize("name", ["flowers", "birds", "imagenet2012"])
def test_datasets_of_tfds(prepared, name, file_format):
    import tensorflow_datasets as tfds

    folder = prepared(name, file_format)
    asked = "imagenet" if name == "imagenet2012" else name
    found = find(config(folder, asked))
    assert found.origin.startswith(f"TensorFlow Datasets in {folder}/{name}/1.0.0")
    assert found.info.name == asked and found.info.classes == 5
    named = tuple("abcde") if name == "birds" else ()
    assert found.info.class_names == named
    assert found.info.image_shape == (0, 0, 3)
    keys = ("picture", "species") if name == "birds" else ("image", "label")
    one_file_at_a_time = tfds.ReadConfig(interleave_cycle_length=1)
    builder = tfds.builder_from_directory(folder / name / "1.0.0")
    for split, of_tfds in (
        ("train", "train"),
        ("validation", "test" if name == "flowers" else None),
    ):
        of_tfds = of_tfds or "validation"
        source = open_split(found.info, found.splits[split])
        if file_format == "array_record":
            expected = builder.as_data_source(of_tfds)
        else:
            expected = builder.as_dataset(split=of_tfds, read_config=one_file_at_a_time)
            expected = list(tfds.as_numpy(expected))
        assert len(source) == len(expected) == 12
        sample = found.splits[split].sample
        assert len(sample) == 2 and all((folder / name).is_file() for name in sample)
        for i, sample in enumerate(expected):
            image, label = source.decode(source.read(i))
            assert label == sample[keys[1]]
            # TFDS decodes with TensorFlow's default, which is less accurate.
            assert np.abs(image.astype(int) - sample[keys[0]]).mean() < 5


def test_a_dataset_without_samples_to_evaluate_on(prepared):
    with pytest.raises(DataError, match="lonely has the splits train; train, and validation or"):
        find(config(prepared("lonely", "array_record"), "lonely"))


def test_names_that_nobody_knows(tmp_path):
    with pytest.raises(DataError, match=r"'flowres' is unknown; choose from fashion_mnist, .*"):
        find(config(tmp_path, "flowres"))
    assert not list(tmp_path.iterdir())


def test_datasets_of_other_things_are_not_downloaded(tmp_path):
    with pytest.raises(DataError, match=r"imdb_reviews is no classification of images: it has"):
        find(config(tmp_path, "imdb_reviews"))


def test_a_dataset_that_is_not_there_and_no_network(tmp_path, monkeypatch):
    from ba_dist.data.catalog import tfds_arrays

    def no_address(host, port):
        raise OSError("Name or service not known")

    monkeypatch.setattr(tfds_arrays.socket, "getaddrinfo", no_address)
    with pytest.raises(DataError) as caught:
        find(config(tmp_path, "tf_flowers"))
    assert "no network" in str(caught.value)
    assert "ba-dist data prepare tf_flowers" in str(caught.value)
