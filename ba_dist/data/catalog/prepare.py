"""Gets a small dataset and stores it as plain arrays, once.

    cache/datasets/NAME/{train,test}_{images,labels}.npy and info.json

A dataset is looked for in this order: prepared arrays; files in the data directory; for
Fashion-MNIST the files of the installed Debian package; TensorFlow Datasets (prepared there, else
downloaded, as ArrayRecord). Last of all, and only by `ba-dist data prepare`, the Debian package is
installed. Samples keep the order of their origin, so origins have different digests.
"""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ba_dist.data.catalog import class_names
from ba_dist.data.catalog.splits import SPLITS
from ba_dist.data.sources import ImageInfo
from ba_dist.errors import CorruptRecord, DataError, DataUnavailable, reason
from ba_dist.storage import lock
from ba_dist.storage.cache import DATA_VARIABLE, cache_dir, check_data_dir, data_dir

KINDS = ("images", "labels")
# What these datasets, and the files that are prepared of them, call the splits.
_NAMES = {"train": "train", "validation": "test"}
Arrays = dict[str, npt.NDArray[np.generic]]  # by the names of `array_name`


def array_name(split: str, kind: str) -> str:
    """The name of the images or labels of a split, `test_images` for those of validation."""
    return f"{_NAMES[split]}_{kind}"


_KEYS = [array_name(split, kind) for split in SPLITS for kind in KINDS]

INFOS = {
    info.name: info
    for info in (
        ImageInfo(
            "fashion_mnist", (28, 28, 1), 10, (0.2860,), (0.3530,), class_names.FASHION_MNIST
        ),
        ImageInfo(
            "cifar10",
            (32, 32, 3),
            10,
            (0.4914, 0.4822, 0.4465),
            (0.2470, 0.2435, 0.2616),
            class_names.CIFAR10,
        ),
        ImageInfo(
            "cifar100",
            (32, 32, 3),
            100,
            (0.5071, 0.4865, 0.4409),
            (0.2673, 0.2564, 0.2762),
            class_names.CIFAR100,
        ),
        ImageInfo("digits", (8, 8, 1), 10, (0.3053,), (0.3761,)),
    )
}

_IDX_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
_DEBIAN_PACKAGE = "dataset-fashion-mnist"
_DEBIAN_FOLDER = "usr/share/datasets/fashion-mnist"


@dataclass(frozen=True)
class Prepared:
    """Arrays on disk.

    Args:
        folder: the folder of the arrays.
        info: facts of the dataset.
        digest: SHA-256 over all arrays.
        origin: where they came from, for messages.
    """

    folder: Path
    info: ImageInfo
    digest: str
    origin: str


def prepare(name: str, given_dir: str | None = None, install: bool = False) -> Prepared:
    """Makes the arrays of a dataset, or finds them; several processes may do it at a time.

    Args:
        name: one of `INFOS`.
        given_dir: the value of --data-dir.
        install: whether a Debian package may be installed for it.

    Raises:
        DataUnavailable: with everything that was tried, and how to get the data.
        DataError: when what is there is corrupt, or the cache cannot be written.
    """
    path = data_dir(given_dir)
    folder = _prepared_folder(name, path)
    if found := _load(folder, name):
        return found
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock.hold(folder.with_name(f"{folder.name}.lock"), wait=True):
            if found := _load(folder, name):
                return found
            arrays, origin = _acquire(name, path, install)
            return _store(folder, INFOS[name], _checked(INFOS[name], arrays, origin), origin)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {reason(error)}; XDG_CACHE_HOME names another place"
        ) from None


def _prepared_folder(name: str, path: Path | None) -> Path:
    if name.startswith("synthetic"):
        raise DataError(f"the dataset {name} is made as it is read; it needs no preparation")
    if name not in INFOS:
        raise DataError(f"--dataset {name!r} is unknown; choose from {', '.join(INFOS)}, synthetic")
    if path is None:
        return cache_dir() / "datasets" / name
    check_data_dir(path)
    # Another folder may have other files with the same names.
    return cache_dir() / "datasets" / f"{name}-{hashlib.sha256(bytes(path)).hexdigest()[:12]}"


def _load(folder: Path, name: str) -> Prepared | None:
    """The arrays in the folder of a dataset; None when it was not prepared.

    Raises:
        DataError: when they have changed since.
    """
    try:
        facts = json.loads((folder / "info.json").read_text())
        info = facts["info"]
        for key in ("image_shape", "mean", "std"):
            info[key] = tuple(info[key])
        arrays = {key: np.load(folder / f"{key}.npy", "r", allow_pickle=False) for key in _KEYS}
        if _digest(arrays) != facts["digest"]:
            raise ValueError("its content does not match its digest")
        named = replace(ImageInfo(**info), class_names=INFOS[name].class_names)
        return Prepared(folder, named, facts["digest"], facts["origin"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not (folder / "info.json").exists():
            return None
        raise DataError(f"{folder} is corrupt ({error}); delete it to prepare it anew") from None


def _checked(info: ImageInfo, arrays: Arrays, origin: str) -> Arrays:
    """The arrays with the dataset's shape, uint8 images and int64 labels.

    Raises:
        DataError: when they are not those of this dataset.
    """
    checked: Arrays = {}
    for split in SPLITS:
        images_name, labels_name = (array_name(split, kind) for kind in KINDS)
        images, labels = arrays[images_name], arrays[labels_name].astype(np.int64)
        shapes = (info.image_shape, info.image_shape[:2] if info.image_shape[2] == 1 else ())
        if images.dtype != np.uint8 or images.shape[1:] not in shapes:
            raise DataError(
                f"{origin}: {split} images are {images.dtype} {images.shape[1:]},"
                f" those of {info.name} are uint8 {info.image_shape}"
            )
        if len(images) != len(labels) or not len(images):
            raise DataError(f"{origin}: {len(images)} {split} images, {len(labels)} labels")
        if labels.min() < 0 or labels.max() >= info.classes:
            raise DataError(
                f"{origin}: {split} labels are {labels.min()} … {labels.max()},"
                f" those of {info.name} are 0 … {info.classes - 1}"
            )
        checked[images_name] = images.reshape(-1, *info.image_shape)
        checked[labels_name] = labels
    return checked


def _store(folder: Path, info: ImageInfo, arrays: Arrays, origin: str) -> Prepared:
    """Writes to a temporary folder, then renames it, so that a reader sees all of it or nothing."""
    # The lock is held, so what is there was left by a process that was killed.
    for left in [folder, *folder.parent.glob(f".{folder.name}.*")]:
        shutil.rmtree(left, ignore_errors=True)
    digest = _digest(arrays)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for key in _KEYS:
            np.save(temporary / f"{key}.npy", arrays[key])
        facts = {"info": info.stored(), "digest": digest, "origin": origin}
        (temporary / "info.json").write_text(json.dumps(facts, indent=2))
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Prepared(folder, info, digest, origin)


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for key in _KEYS:
        digest.update(np.ascontiguousarray(arrays[key]).data)
    return digest.hexdigest()


def _acquire(name: str, path: Path | None, install: bool) -> tuple[Arrays, str]:
    """Tries every way in order, until one gives the arrays; also says which."""
    ways: list[tuple[str, Callable[[], Arrays | None]]] = []
    tried = []
    if name == "fashion_mnist":
        # Not in the loop below, where an error means the next way: corrupt files are an error.
        for folder in (path, Path("/") / _DEBIAN_FOLDER):
            if folder and (arrays := _idx_files(folder)):
                return arrays, f"the files in {folder}"
            tried += [f"the files in {folder}: not there"] * bool(folder)
        if install:
            ways = [(f"the Debian package {_DEBIAN_PACKAGE}", _debian_package)]
        else:
            command = f"`ba-dist data prepare {name}`"
            tried.append(f"the Debian package {_DEBIAN_PACKAGE}: only {command} installs it")
    if name == "digits":
        ways = [("scikit-learn's digits", _digits)]
    else:
        ways.insert(0, ("TensorFlow Datasets", lambda: _tfds(name, path)))
    for title, way in ways:
        try:
            if arrays := way():
                return arrays, title
            tried.append(f"{title}: not there")
        except CorruptRecord:  # it is there, but corrupt
            raise
        except Exception as error:  # each way has its own kinds of errors; all are reported
            tried.append(f"{title}: {first_line(error)}")
    raise DataUnavailable(
        f"{name} cannot be had on this machine:\n  - "
        + "\n  - ".join(tried)
        + f"\nRun `ba-dist data prepare {name}` on a machine with a network and the same cache"
        f" (XDG_CACHE_HOME), or name a folder that holds it by --data-dir or ${DATA_VARIABLE}."
    )


def first_line(error: Exception) -> str:
    """The type and the first line of an error, for a list of what was tried."""
    text = f"{error}".strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


def _digits() -> Arrays:
    """1,797 handwritten digits of 8x8 pixels from scikit-learn's wheel; every sixth is for
    validation.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    test = np.arange(len(images)) % 6 == 0
    return {
        "train_images": images[~test],
        "train_labels": digits.target[~test],
        "test_images": images[test],
        "test_labels": digits.target[test],
    }


def _idx_files(folder: Path) -> Arrays | None:
    """The four files of MNIST's format, with or without .gz; None unless all are there."""
    paths = {}
    for key, name in _IDX_FILES.items():
        here = [p for p in (folder / name, folder / f"{name}.gz") if p.is_file()]
        if not here:
            return None
        paths[key] = here[0]
    return {key: read_idx(path) for key, path in paths.items()}


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Reads one file of MNIST's idx format of unsigned bytes, plain or gzipped.

    Raises:
        DataError: naming the file, when it is not of this format or is cut short.
    """
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise DataError(f"{path} is not an idx file of unsigned bytes")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise DataError(f"{path} holds {len(raw)} bytes, its header alone has {start}")
    shape = np.frombuffer(raw[4:start], ">u4").astype(np.int64)
    if len(raw) != start + shape.prod():
        raise DataError(f"{path} holds {len(raw) - start} bytes, {shape.prod()} were expected")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _tfds(name: str, path: Path | None) -> Arrays:
    """Through TensorFlow Datasets as ArrayRecord, read by index."""
    from ba_dist.data.catalog import tfds_arrays

    return tfds_arrays.read_splits(name, path or cache_dir() / "tfds", tuple(_NAMES.values()))


def _debian_package() -> Arrays | None:
    """Installed by apt as root; otherwise downloaded and unpacked into the cache."""
    if not shutil.which("apt-get"):
        return None
    if os.geteuid() == 0:
        apt(["apt-get", "install", "--yes", "--no-install-recommends", _DEBIAN_PACKAGE])
        return _idx_files(Path("/") / _DEBIAN_FOLDER)
    folder = cache_dir() / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as download:
        apt(["apt-get", "download", _DEBIAN_PACKAGE], download)
        (package,) = Path(download).glob("*.deb")
        apt(["dpkg-deb", "--extract", str(package), str(folder)], download)
    return _idx_files(folder / _DEBIAN_FOLDER)


def apt(command: list[str], folder: str = "/") -> None:
    """Runs a command of apt; if it fails, again after the package lists were updated."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def attempt(words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
        )

    done = attempt(command)
    if done.returncode and os.geteuid() == 0 and attempt(["apt-get", "update"]).returncode == 0:
        done = attempt(command)
    if done.returncode:
        raise DataError((done.stderr or done.stdout).strip() or f"{command[0]} failed")
