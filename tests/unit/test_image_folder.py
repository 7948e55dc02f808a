"""A folder per class: sorted, listed once, refused where training and validation do not fit."""

import os

import numpy as np
import pytest

from ba_dist.config import Data
from ba_dist.data.catalog import open_source
from ba_dist.data.catalog.find import find
from ba_dist.data.sources.image_folder import list_classes, list_images
from ba_dist.errors import CorruptRecord, DataError

from .. import pictures


@pytest.fixture
def place(tmp_path):
    pictures.make_folder(tmp_path, classes=3, per_class=2, low=16, high=20)
    return tmp_path


def config(place):
    return Data(dataset="pictures", data_dir=str(place))


def paths(place, split="train"):
    source = open_source(config(place), split)
    return [source.where(i) for i in range(len(source))]


def test_sorted_by_class_then_by_name(tmp_path):
    names = ["b.png", "a.JPEG", "c.jpg", "B.jpeg", "ü.JPG", "10.png", "9.png"]
    for name in names:
        for folder in ("train/z", "train/Z", "train/10", "val/z"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_bytes(b"")
    expected = [
        str(tmp_path / "train" / label / name)
        for label in ("10", "Z", "z")
        for name in sorted(names, key=os.fsencode)
    ]
    assert paths(tmp_path) == expected
    source = open_source(config(tmp_path), "validation")
    assert source.info.classes == 3
    assert np.frombuffer(source.read(0), np.int64, 1)[0] == 2, "z is the third class of training"


def test_what_is_no_picture_is_counted(place):
    (place / "train" / "class-000" / "readme.txt").write_text("no picture")
    (place / "train" / "class-001" / "._picture-00000.JPEG").write_bytes(b"of a Mac")
    (place / "train" / ".cache").mkdir()
    (place / "train" / "list.txt").write_text("beside the folders")
    found = find(config(place))
    assert "3 classes, 2 files that are no images left aside" in found.origin
    assert found.splits["train"].count == 6


def test_links_to_folders_and_files_count(place, tmp_path):
    elsewhere = place / "elsewhere"
    (place / "train" / "class-001").rename(elsewhere)
    (place / "train" / "class-001").symlink_to(elsewhere)
    (place / "val" / "class-000" / "link.jpg").symlink_to(elsewhere / "picture-00002.JPEG")
    assert len(paths(place)) == 6
    source = open_source(config(place), "validation")
    assert len(source) == 7
    for i in range(7):
        source.decode(source.read(i))


def test_a_link_to_nowhere_is_a_sample_that_cannot_be_read(place):
    (place / "train" / "class-000" / "a.jpg").symlink_to(place / "gone")
    (place / "train" / "class-000" / "b.jpg").mkdir()
    os.mkfifo(place / "train" / "class-000" / "c.jpg")
    source = open_source(config(place), "train")
    for i, why in enumerate(["No such file", "Is a directory", "Illegal seek|no picture"]):
        with pytest.raises(CorruptRecord, match=why):
            source.decode(source.read(i))
        assert source.where(i).endswith(f"{'abc'[i]}.jpg")


def test_a_class_without_pictures_keeps_its_number(place):
    (place / "train" / "class-000a").mkdir()
    assert open_source(config(place), "train").info.classes == 4
    labels = [
        int(np.frombuffer(source.read(i), np.int64, 1)[0])
        for source in [open_source(config(place), "validation")]
        for i in range(len(source))
    ]
    assert labels == [0, 0, 2, 2, 3, 3]


def test_validation_may_lack_classes_but_not_have_others(place):
    (place / "val" / "class-001").rename(place / "val" / "class-007")
    with pytest.raises(DataError, match=r"val has 1 classes that .*train lacks: class-007;"):
        find(config(place))
    (place / "val" / "class-007").rename(place / "elsewhere")
    assert find(config(place)).splits["validation"].count == 4


def test_pictures_without_folders_of_classes(place):
    for path in (place / "val").glob("*/*"):
        path.rename(place / "val" / path.name)
    for path in (place / "val").glob("class-*"):
        path.rmdir()
    with pytest.raises(DataError, match=r"val holds 6 images that are in no folder of a class"):
        find(config(place))


def test_no_pictures_at_all(place):
    for path in (place / "train").glob("*/*"):
        path.unlink()
    with pytest.raises(DataError, match=r"train holds no images; expected .*CLASS/NAME with"):
        find(config(place))


def test_contents_tell_which_class_differs(place):
    before = open_source(config(place), "train").contents
    (place / "train" / "class-001" / "picture-00002.JPEG").unlink()
    after = open_source(config(place), "train").contents
    assert [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]][0] == (
        "class-001: 2 pictures",
        "class-001: 1 pictures",
    )
    path = place / "train" / "class-001" / "picture-00003.JPEG"
    path.rename(path.with_name("x.jpg"))
    renamed = open_source(config(place), "train").contents
    assert renamed[:-1] == after[:-1] and renamed[-1] != after[-1]


def test_a_file_that_changes_after_the_listing(place):
    source = open_source(config(place), "train")
    (place / "train" / "class-000" / "picture-00000.JPEG").write_bytes(b"")
    with pytest.raises(CorruptRecord, match="0 bytes are no image"):
        source.decode(source.read(0))


def test_the_listing_is_small(tmp_path, monkeypatch):
    """No Python object a file: 1000 names of 21 bytes cost 29 bytes each."""
    folder = tmp_path / "train" / "n01440764"
    folder.mkdir(parents=True)
    for i in range(1000):
        (folder / f"n01440764_{i:06d}.JPEG").touch()
    listing = list_images(tmp_path / "train", list_classes(tmp_path / "train"))
    arrays = (listing.names, listing.ends, listing.class_ends)
    assert sum(array.nbytes for array in arrays) == 1000 * (21 + 8) + 8
