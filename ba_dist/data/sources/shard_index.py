"""The offset and label of each record in the TFRecord shards of a split, kept in a file.

    train.ba_dist-index     beside train-00000-of-01024 …, or in the cache where that is read-only

The file is in the safetensors format: plain arrays and text. It has the sizes and times of the
shards, so that an index of other shards is refused, and a digest of itself.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from ba_dist.data.sources.examples import SCRIPTS, TFDS, Features, label_of, parse
from ba_dist.data.sources.tfrecord import scan
from ba_dist.errors import CorruptRecord, DataError, reason
from ba_dist.storage import whole_file
from ba_dist.storage.cache import cache_dir

SUFFIX = ".ba_dist-index"
UNKNOWN = -1  # the label of a record whose data does not match its checksum
_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})")
_COLUMNS = {"shard": np.uint32, "offset": np.int64, "length": np.int64, "label": np.int32}


@dataclass(frozen=True)
class ShardIndex:
    """All records of a split, in the order of the shards.

    Args:
        features: names of the features; which label is class 0 is not known from one split.
        names: file names of the shards.
        sizes: int64 [shards], bytes.
        times: int64 [shards], nanoseconds of the last change.
        columns: `shard` uint32, `offset` int64, `length` int64, `label` int32 (UNKNOWN where the
            record is corrupt), all [N].
    """

    features: Features
    names: list[str]
    sizes: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    columns: dict[str, npt.NDArray[Any]]

    def labels(self) -> npt.NDArray[np.int32]:
        """The labels of all records that are not corrupt."""
        labels: npt.NDArray[np.int32] = self.columns["label"]
        return labels[labels != UNKNOWN]


def find_shards(folder: Path, split: str) -> list[Path]:
    """The shards `SPLIT-00000-of-00007` … of a folder; empty where there are none.

    Raises:
        DataError: naming what is missing, or when there are two sets of them.
    """
    found: dict[int, dict[int, Path]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if (match := _SHARD.fullmatch(path.name)) and match["split"] == split:
            found.setdefault(int(match["total"]), {})[int(match["number"])] = path
    if len(found) > 1:
        raise DataError(
            f"{folder} holds {split} in {' and in '.join(str(n) for n in sorted(found))} shards;"
            " move one set of them elsewhere"
        )
    for total, shards in found.items():
        missing = sorted(set(range(total)) - set(shards))
        if missing:
            raise DataError(
                f"{len(missing)} of {total} shards of {split} are missing from {folder}, the first"
                f" is {split}-{missing[0]:05d}-of-{total:05d}; copy them there"
            )
        return [shards[number] for number in range(total)]
    return []


# --- making it ------------------------------------------------------------------------------------


def build(
    shards: list[Path],
    features: Features | None = None,
    threads: int = 4,
    done: Callable[[], object] = lambda: None,
) -> tuple[ShardIndex, list[str]]:
    """Reads every shard once and checks every checksum.

    A record whose data is corrupt is in the index like all others. To leave it out would change the
    ids of all samples after it. It is reported when it is read.

    Args:
        shards: the files.
        features: names of the features where they are known; otherwise those of ImageNet's
            scripts or of TensorFlow Datasets, whichever are found.
        threads: number of shards that are read at a time.
        done: called after each shard.

    Returns:
        The index, and a line for each corrupt record, naming file and byte.

    Raises:
        DataError: naming file and byte, where the next record of a shard cannot be found, or a
            record is not a labelled image.
    """
    before = _facts(shards)

    def one(path: Path) -> _Shard:
        part = _scan_shard(path, features)
        done()
        return part

    pool = ThreadPoolExecutor(threads, "index")
    try:
        parts = list(pool.map(one, shards))
    finally:
        pool.shutdown(cancel_futures=True)
    kinds = {part.features for part in parts if part.features}
    if not kinds:
        raise DataError(f"{shards[0]} … {shards[-1].name}: every record is corrupt")
    if len(kinds) > 1:
        names = " and in others ".join(sorted(repr(kind.image) for kind in kinds))
        raise DataError(f"{shards[0].parent}: images are in some shards called {names}")
    numbers = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])
    values = (numbers, *np.concatenate([part.rows for part in parts]).T)
    columns = {
        name: np.ascontiguousarray(column, kind)
        for (name, kind), column in zip(_COLUMNS.items(), values, strict=True)
    }
    index = ShardIndex(kinds.pop(), [path.name for path in shards], *before, columns)
    return index, [line for part in parts for line in part.corrupt]


@dataclass
class _Shard:
    """Offset, length and label of each record of one file, and a line for each corrupt one."""

    rows: npt.NDArray[np.int64]
    features: Features | None
    corrupt: list[str]


def _scan_shard(path: Path, features: Features | None) -> _Shard:
    rows: list[tuple[int, int, int]] = []
    corrupt = []
    try:
        for record in scan(path):
            label = UNKNOWN
            if record.data is None:
                corrupt.append(f"{path} at byte {record.offset}: its data is corrupt")
            else:
                try:
                    parsed = parse(record.data)
                    features = features or _kind(parsed)
                    label = label_of(parsed, features.label)
                except CorruptRecord as error:
                    raise DataError(f"{path} at byte {record.offset}: {error}") from None
            rows.append((record.offset, record.length, label))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not rows:
        raise DataError(f"{path} is empty; copy it again")
    return _Shard(np.array(rows, np.int64).reshape(-1, 3), features, corrupt)


def _kind(parsed: Any) -> Features:
    for features in (SCRIPTS, TFDS):
        if features.image in parsed and features.label in parsed:
            return features
    expected = " or ".join(f"{kind.image} and {kind.label}" for kind in (SCRIPTS, TFDS))
    raise CorruptRecord(f"it holds {', '.join(sorted(parsed)) or 'nothing'}; expected {expected}")


def _facts(shards: list[Path]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sizes, and times of the last change in nanoseconds, int64 [shards] each."""
    try:
        stats = [path.stat() for path in shards]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from None
    return (
        np.array([stat.st_size for stat in stats], np.int64),
        np.array([stat.st_mtime_ns for stat in stats], np.int64),
    )


# --- keeping it -----------------------------------------------------------------------------------


def index_paths(shards: list[Path]) -> tuple[Path, Path]:
    """The two possible paths of the index of these shards: beside them, and in the cache."""
    folder = shards[0].parent.resolve()
    match = _SHARD.fullmatch(shards[0].name)
    name = f"{match['split'] if match else shards[0].name}{SUFFIX}"
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return folder / name, cache_dir() / "indexes" / f"{key}-{name}"


def save(index: ShardIndex, shards: list[Path]) -> Path:
    """Writes the index, whole or not at all, and returns its path.

    Raises:
        DataError: when neither path can be written.
    """
    facts = {
        "image": index.features.image,
        "label": index.features.label,
        "names": index.names,
        "digest": _digest(index),
    }
    arrays = {**index.columns, "sizes": index.sizes, "times": index.times}
    data = safetensors.numpy.save(arrays, metadata={"ba_dist": json.dumps(facts)})
    beside, cached = index_paths(shards)
    try:
        return whole_file.write(beside, data, alone=False)
    except OSError:
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            return whole_file.write(cached, data, alone=False)
        except OSError as error:
            raise DataError(
                f"the index can be written neither as {beside} nor as {cached}: {reason(error)};"
                " XDG_CACHE_HOME names another cache"
            ) from None


def load(shards: list[Path], command: str) -> ShardIndex | None:
    """The index of these shards, None where there is none.

    Args:
        shards: the files that are there now.
        command: that makes the index again; for messages.

    Raises:
        DataError: naming the shard that has changed since, or the index if it is corrupt.
    """
    failure = None
    for path in index_paths(shards):
        if not path.is_file():
            continue
        try:
            index = _load(path)
            _check_same(index, shards, path)
            return index
        except DataError as error:
            failure = failure or DataError(f"{error}; run `{command}`")
    if failure:
        raise failure
    return None


def _load(path: Path) -> ShardIndex:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            facts = json.loads(file.metadata()["ba_dist"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        features = Features(facts["image"], facts["label"])
        sizes, times = arrays.pop("sizes"), arrays.pop("times")
        columns = {name: arrays[name] for name in _COLUMNS}
        index = ShardIndex(features, list(facts["names"]), sizes, times, columns)
        if _digest(index) != facts["digest"]:
            raise ValueError("its content does not match its digest")
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is corrupt ({reason(error)})") from None
    return index


def _check_same(index: ShardIndex, shards: list[Path], path: Path) -> None:
    """Raises DataError, naming the first shard that has changed since the index was made."""
    there = {shard.name for shard in shards}
    for name in sorted(there.symmetric_difference(index.names)):
        known = "is missing now" if name in index.names else "is not in it"
        raise DataError(f"{path} does not fit the shards: {name} {known}")
    for shard, size, time, was, then in zip(
        shards, *_facts(shards), index.sizes, index.times, strict=True
    ):
        if size != was:
            raise DataError(f"{shard} has {size} bytes, it had {was} when {path} was made")
        if time != then:
            raise DataError(
                f"{shard} was written again after {path} was made"
                f" (its time of change differs by {abs(time - then) / 1e9:.3f} s; `cp -p` keeps it)"
            )


def _digest(index: ShardIndex) -> str:
    digest = hashlib.sha256(
        json.dumps([index.features.image, index.features.label, index.names]).encode()
    )
    for array in (index.sizes, index.times, *(index.columns[name] for name in _COLUMNS)):
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
