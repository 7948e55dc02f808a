"""Small datasets become arrays once, whole, from files that are checked."""

import gzip
import json
import select
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from ba_dist.data.catalog import prepare as preparing
from ba_dist.data.catalog.prepare import INFOS, prepare, read_idx
from ba_dist.errors import DataError
from ba_dist.storage import lock

FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def idx(array):
    """The bytes of MNIST's format: 0, 0, type, dimensions, big-endian sizes, values."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's own; subprocesses see it too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BA_DIST_DATA", raising=False)
    return tmp_path / "cache" / "ba_dist" / "datasets"


@pytest.fixture
def fashion():
    """The arrays of a Fashion-MNIST of 50 images."""
    noise = np.random.default_rng(1)
    return {
        "train_images": noise.integers(0, 256, (20, 28, 28), np.uint8),
        "train_labels": noise.integers(0, 10, 20, np.uint8),
        "test_images": noise.integers(0, 256, (30, 28, 28), np.uint8),
        "test_labels": noise.integers(0, 10, 30, np.uint8),
    }


def put(folder, arrays, zipped=False):
    folder.mkdir(exist_ok=True)
    for key, array in arrays.items():
        name, data = FILES[key], idx(array)
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(data) if zipped else data)
    return str(folder)


def stored(made):
    return {key: np.load(made.folder / f"{key}.npy") for key in FILES}


# --- idx files ----------------------------------------------------------------------------------


@given(arrays_of.arrays(np.uint8, arrays_of.array_shapes(min_dims=0, max_dims=4)), st.booleans())
def test_idx_round_trip(tmp_path_factory, array, zipped):
    path = tmp_path_factory.mktemp("idx") / ("file.gz" if zipped else "file")
    path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    found = read_idx(path)
    assert found.dtype == np.uint8 and found.shape == array.shape
    assert np.array_equal(found, array)


@pytest.mark.parametrize("zipped", [False, True])
def test_every_cut_is_refused(tmp_path, zipped):
    whole = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    whole = gzip.compress(whole) if zipped else whole
    path = tmp_path / ("file.gz" if zipped else "file")
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=str(path)):
            read_idx(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(DataError, match=str(path)):
        read_idx(path)


@pytest.mark.parametrize(
    "start", [b"\0\0\x09\1", b"\1\0\x08\1", b"\0\1\x08\1", b"\x89PNG"], ids=repr
)
def test_other_formats_are_refused(tmp_path, start):
    (tmp_path / "file").write_bytes(start + b"\0\0\0\1\0")
    with pytest.raises(DataError, match="file is not an idx file of unsigned bytes"):
        read_idx(tmp_path / "file")


def test_sizes_beyond_all_memory_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"\0\0\x08\3" + b"\xff" * 12 + b"\0" * 9)
    with pytest.raises(DataError, match=r"holds 9 bytes, .* were expected"):
        read_idx(tmp_path / "file")


def test_a_zip_that_rots_inside_is_refused(tmp_path):
    whole = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, 3000, np.uint8)))
    for position in range(0, len(whole), 97):
        flipped = bytearray(whole)
        flipped[position] ^= 0x55
        (tmp_path / "file.gz").write_bytes(flipped)
        try:
            assert np.array_equal(idx(read_idx(tmp_path / "file.gz")), gzip.decompress(whole))
        except DataError:
            continue


# --- from files to arrays -----------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_files_of_a_person_become_arrays(cache, tmp_path, fashion, zipped):
    made = prepare("fashion_mnist", put(tmp_path / "data", fashion, zipped))
    assert made.info == INFOS["fashion_mnist"] and str(tmp_path / "data") in made.origin
    for key, array in stored(made).items():
        assert np.array_equal(array.reshape(fashion[key].shape), fashion[key])
        expected = (*fashion[key].shape, 1) if "images" in key else fashion[key].shape
        assert array.shape == expected
        assert array.dtype == (np.uint8 if "images" in key else np.int64)
    assert prepare("fashion_mnist", str(tmp_path / "data")) == made
    assert "class_names" not in (made.folder / "info.json").read_text()  # old versions read it too


@pytest.mark.parametrize("name", INFOS)
def test_a_name_for_every_class_or_none(name):
    names = INFOS[name].class_names
    assert len(set(names)) == len(names) and len(names) in (0, INFOS[name].classes)
    assert name != "cifar100" or list(names) == sorted(names)


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("fashion_mnist", {0: "T-shirt/top", 5: "sandal", 9: "ankle boot"}),
        ("cifar10", {0: "airplane", 3: "cat", 9: "truck"}),
        ("cifar100", {0: "apple", 51: "mushroom", 99: "worm"}),
    ],
)
def test_classes_have_the_names_of_those_who_made_the_data(name, some):
    assert {label: INFOS[name].class_names[label] for label in some} == some


def test_the_digest_names_the_content(cache, tmp_path, fashion):
    first = prepare("fashion_mnist", put(tmp_path / "a", fashion))
    same = prepare("fashion_mnist", put(tmp_path / "b", fashion, zipped=True))
    assert first.folder != same.folder and first.digest == same.digest
    for number, key in enumerate(fashion):
        changed = {name: array.copy() for name, array in fashion.items()}
        changed[key].flat[3] = (changed[key].flat[3] + 1) % 10
        other = prepare("fashion_mnist", put(tmp_path / f"c{number}", changed))
        assert other.digest != first.digest


def test_the_environment_names_the_place(cache, tmp_path, fashion, monkeypatch):
    monkeypatch.setenv("BA_DIST_DATA", put(tmp_path / "data", fashion))
    assert prepare("fashion_mnist") == prepare("fashion_mnist", str(tmp_path / "data"))


def without_a_label(fashion):
    fashion["train_labels"] = fashion["train_labels"][1:]


def with_a_label_too_high(fashion):
    fashion["test_labels"][0] = 10


def of_another_shape(fashion):
    fashion["test_images"] = np.zeros((30, 32, 32), np.uint8)


def of_no_images(fashion):
    fashion["test_images"], fashion["test_labels"] = (
        np.zeros(s, np.uint8) for s in ((0, 28, 28), 0)
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_a_label, "20 train images, 19 labels"),
        (with_a_label_too_high, r"validation labels are . … 10, those of fashion_mnist are 0 … 9"),
        (of_another_shape, r"validation images are uint8 \(32, 32\), .* \(28, 28, 1\)"),
        (of_no_images, "0 validation images, 0 labels"),
    ],
)
def test_files_that_do_not_fit_are_refused(cache, tmp_path, fashion, spoil, message):
    spoil(fashion)
    with pytest.raises(DataError, match=message) as caught:
        prepare("fashion_mnist", put(tmp_path / "data", fashion))
    assert str(tmp_path / "data") in str(caught.value)
    assert not list(cache.glob("*/*"))


def test_a_corrupt_file_is_named_and_no_other_data_taken(cache, tmp_path, fashion):
    path = tmp_path / "data" / FILES["test_labels"]
    place = put(tmp_path / "data", fashion)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{path} holds 29 bytes, 30 were expected"):
        prepare("fashion_mnist", place)


def test_corrupt_files_of_the_installed_package_are_named(cache, tmp_path, fashion, monkeypatch):
    """They are there, so the dataset is not one that cannot be had."""
    put(tmp_path / "installed", fashion)
    (tmp_path / "installed" / FILES["train_images"]).write_bytes(b"\0\0\x08")
    monkeypatch.setattr(preparing, "_DEBIAN_FOLDER", str(tmp_path / "installed"))
    with pytest.raises(DataError, match="train-images-idx3-ubyte is not an idx file") as caught:
        prepare("fashion_mnist")
    assert type(caught.value) is DataError and "cannot be had" not in str(caught.value)


def test_digits_need_no_network(cache):
    made = prepare("digits")
    arrays = stored(made)
    train, test = arrays["train_images"], arrays["test_images"]
    assert train.shape == (1497, 8, 8, 1) and test.shape == (300, 8, 8, 1)
    pixels = train / 255
    assert pixels.max() == 1
    assert made.info.mean == pytest.approx((pixels.mean(),), abs=1e-3)
    assert made.info.std == pytest.approx((pixels.std(),), abs=1e-3)
    for split in ("train", "test"):
        assert set(arrays[f"{split}_labels"].tolist()) == set(range(10))
    assert not {i.tobytes() for i in train} & {i.tobytes() for i in test}


# --- places and names ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "CIFAR10", ""])
def test_unknown_names_list_the_known_ones(cache, name):
    with pytest.raises(DataError) as caught:
        prepare(name)
    assert all(known in str(caught.value) for known in [f"{name!r} is unknown", *INFOS])


def test_synthetic_is_not_prepared(cache):
    with pytest.raises(DataError, match="needs no preparation"):
        prepare("synthetic")


def test_a_data_directory_that_is_not_there(cache, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("gone", "file"):
        with pytest.raises(DataError, match=f"the data directory .*{name} is (not there|a file)"):
            prepare("cifar10", str(tmp_path / name))


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot be written: .*; XDG_CACHE_HOME names another"):
        prepare("digits")


# --- two at a time, killed, corrupt ---------------------------------------------------------------

PREPARE = """
import json, resource, signal, sys
from ba_dist.data.catalog.prepare import prepare
name, place, limit = sys.argv[1], sys.argv[2] or None, int(sys.argv[3])
if limit:  # the kernel kills a process that writes beyond it
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print("begun", flush=True)
made = prepare(name, place)
print(json.dumps([str(made.folder), made.digest]))
"""


def other_process(name, place="", limit=0):
    command = [sys.executable, "-c", PREPARE, name, place, str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_prepare_one_folder(cache, tmp_path, fashion):
    """Both have begun and wait for the lock before either may go on."""
    place = put(tmp_path / "data", fashion)
    folder = preparing._prepared_folder("fashion_mnist", tmp_path / "data")
    cache.mkdir(parents=True)
    with lock.hold(Path(f"{folder}.lock")):
        both = [other_process("fashion_mnist", place) for _ in range(2)]
        assert [process.stdout.readline() for process in both] == ["begun\n"] * 2
        # Time enough to be done without a lock; a slow machine can only make this pass.
        assert select.select([process.stdout for process in both], [], [], 1.0)[0] == []
        assert not folder.exists()
    results = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    made = prepare("fashion_mnist", place)
    assert [json.loads(text) for text in results] == [[str(made.folder), made.digest]] * 2
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == [made.folder]


@pytest.mark.parametrize("limit", [100, 8000, 20_000])
def test_a_killed_preparation_leaves_nothing_that_is_taken(cache, tmp_path, fashion, limit):
    """Killed in the middle of a file; the next process makes all of it and clears up."""
    place = put(tmp_path / "data", fashion)
    killed = other_process("fashion_mnist", place, limit)
    killed.communicate()
    assert killed.returncode == -signal.SIGXFSZ
    assert [path for path in cache.iterdir() if path.name.startswith(".")]
    made = prepare("fashion_mnist", place)
    assert np.array_equal(stored(made)["train_labels"], fashion["train_labels"])
    assert {path for path in cache.iterdir() if path.suffix != ".lock"} == {made.folder}


def test_a_folder_that_was_half_deleted_is_made_anew(cache, tmp_path, fashion):
    place = put(tmp_path / "data", fashion)
    made = prepare("fashion_mnist", place)
    (made.folder / "info.json").unlink()
    assert prepare("fashion_mnist", place) == made
    assert len(stored(made)["train_labels"]) == 20


@pytest.mark.parametrize("name", ["info.json", "train_images.npy", "test_labels.npy"])
def test_a_corrupt_folder_is_named(cache, tmp_path, fashion, name):
    place = put(tmp_path / "data", fashion)
    path = prepare("fashion_mnist", place).folder / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=f"{path.parent} is corrupt .*delete it"):
        prepare("fashion_mnist", place)


@pytest.mark.parametrize("name", ["train_images", "train_labels", "test_images", "test_labels"])
def test_one_bit_of_the_arrays_is_noticed(cache, tmp_path, fashion, name):
    place = put(tmp_path / "data", fashion)
    path = prepare("fashion_mnist", place).folder / f"{name}.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 16
    path.write_bytes(data)
    with pytest.raises(DataError, match="does not match its digest.*delete it to prepare it anew"):
        prepare("fashion_mnist", place)
