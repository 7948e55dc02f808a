"""Name → what one process finds of a dataset on disk: enough for any rank to open it.

The process that finds lists folders and reads indexes; the catalog sends the result to all ranks.
"""

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ba_dist.config import Data
from ba_dist.data.catalog import image_datasets, sentence_pairs, text_datasets
from ba_dist.data.catalog.found import Arrays, Found, Split
from ba_dist.data.catalog.image_datasets import Located
from ba_dist.data.catalog.made import MADE
from ba_dist.data.catalog.prepare import INFOS, KINDS, array_name, prepare
from ba_dist.data.catalog.splits import SPLITS
from ba_dist.data.sources import (
    ArraySource,
    ImageInfo,
    Source,
    shard_index,
)
from ba_dist.data.sources.array_record import ArrayRecordSource, survey
from ba_dist.data.sources.image_folder import (
    ImageFolderSource,
    Listing,
    list_classes,
    list_images,
)
from ba_dist.data.sources.tfrecord import TFRecordSource
from ba_dist.errors import DataError

_LOOKED_AT = 64


def find(config: Data) -> Found:
    """Looks for the dataset; prepares it, or makes its index, where that is not done yet.

    Raises:
        DataError: with what was looked for, and how to get it.
    """
    if config.dataset in MADE:
        return MADE[config.dataset](config)
    if config.dataset in INFOS:
        return _arrays(config)
    if config.dataset in sentence_pairs.NAMES:
        return sentence_pairs.find(config)
    if config.dataset in text_datasets.TEXTS:
        return text_datasets.find(config)
    located = image_datasets.locate(config.dataset, config.data_dir)
    forms = {"folder": _folders, "tfrecord": _tfrecords, "array_record": _array_records}
    return forms[located.form](located)


def index(located: Located, split: str) -> tuple[shard_index.ShardIndex, list[str]]:
    """Makes the index of the shards of a split, with a progress bar on a terminal.

    Returns:
        The index, and a line for each corrupt record.
    """
    shards = located.files[split]
    with tqdm(total=len(shards), desc=f"index {split}", unit="shard", disable=None) as bar:
        return shard_index.build(shards, located.features, done=bar.update)


def _load_or_index(located: Located, split: str) -> shard_index.ShardIndex:
    shards = located.files[split]
    if found := shard_index.load(shards, located.index_command):
        return found
    print(
        f"reading {len(shards)} TFRecord shards in {shards[0].parent} once for their index"
        f" (`{located.index_command}` does it beforehand)",
        file=sys.stderr,
    )
    made, corrupt = index(located, split)
    for line in corrupt:
        print(f"warning: {line}", file=sys.stderr)
    shard_index.save(made, shards)
    return made


# --- one function for each form, and one that opens it --------------------------------------------


def _arrays(config: Data) -> Found:
    prepared = prepare(config.dataset, config.data_dir)
    splits = {}
    for split in SPLITS:
        arrays = {
            kind: np.load(
                prepared.folder / f"{array_name(split, kind)}.npy", "r", allow_pickle=False
            )
            for kind in KINDS
        }
        digest = f"{prepared.digest}-{split}"
        count = len(arrays["labels"])
        splits[split] = Split(count, _open_arrays, {"digest": digest}, arrays, rows=True)
    return Found(prepared.info, prepared.origin, splits)


def _open_arrays(info: ImageInfo, split: Split) -> Source:
    images, labels = split.arrays["images"], split.arrays["labels"]
    return ArraySource(info, images, labels, f"{split.facts['digest']}-{len(labels)}")


def _folders(located: Located) -> Found:
    classes = list_classes(located.files["train"][0])
    splits, ignored = {}, 0
    for split in SPLITS:
        (folder,) = located.files[split]
        listing = list_images(folder, classes)
        facts = {"folder": _name(folder, located.root), "classes": classes}
        arrays: Arrays = {
            "names": listing.names,
            "ends": listing.ends,
            "class_ends": listing.class_ends,
        }
        count = len(listing.ends)
        sample = [f"{facts['folder']}/{listing.name(i)}" for i in _spread(count)]
        splits[split] = Split(count, _open_folder, facts, arrays, located.root, sample)
        ignored += listing.ignored
    others = f", {ignored} files that are no images left aside" if ignored else ""
    info = dataclasses.replace(located, class_names=tuple(classes)).info_of(len(classes))
    return Found(info, f"{located.origin} ({len(classes)} classes{others})", splits)


def _open_folder(info: ImageInfo, split: Split) -> Source:
    folder = split.root / split.facts["folder"]
    return ImageFolderSource(info, Listing(**{**split.facts, **split.arrays, "folder": folder}))


def _tfrecords(located: Located) -> Found:
    indexes = {split: _load_or_index(located, split) for split in SPLITS}
    features, labelled = image_datasets.numbering(located, *indexes.values())
    splits = {}
    for split, made in indexes.items():
        names = [_name(path, located.root) for path in located.files[split]]
        facts = {"shards": names, "sizes": made.sizes, "features": features}
        arrays = {name: made.columns[name] for name in ("shard", "offset", "length")}
        count, sample = len(arrays["offset"]), [names[i] for i in _spread(len(names))]
        splits[split] = Split(count, _open_tfrecord, facts, arrays, located.root, sample)
    info = located.info_of(features.classes)
    return Found(info, f"{located.origin} ({features.classes} classes, {labelled})", splits)


def _open_tfrecord(info: ImageInfo, split: Split) -> Source:
    shards = split.paths(split.facts["shards"])
    return TFRecordSource(
        info,
        shards,
        sizes=split.facts["sizes"],
        features=split.facts["features"],
        **split.arrays,
    )


def _array_records(located: Located) -> Found:
    splits = {}
    for split in SPLITS:
        names = [_name(path, located.root) for path in located.files[split]]
        counts, sizes = survey(located.files[split])
        decoder = image_datasets.tfds_features(located).decode
        facts = {"files": names, "decoder": decoder, "counts": counts, "sizes": sizes}
        count, sample = int(counts.sum()), [names[i] for i in _spread(len(names))]
        splits[split] = Split(count, _open_array_record, facts, {}, located.root, sample)
    return Found(located.info_of(located.classes), located.origin, splits)


def _open_array_record(info: ImageInfo, split: Split) -> Source:
    files = split.paths(split.facts["files"])
    return ArrayRecordSource(info, files, **{k: v for k, v in split.facts.items() if k != "files"})


def _name(path: Path, root: Path) -> str:
    return os.path.relpath(path, root)


def _spread(count: int) -> list[int]:
    """Up to 64 of the numbers 0 … count-1, evenly, with the first and the last."""
    numbers: list[int] = np.linspace(0, count - 1, min(count, _LOOKED_AT)).astype(int).tolist()
    return numbers


def shards_of(config: Data) -> Located:
    """The dataset's TFRecord shards.

    Raises:
        DataError: when it has no shards, so that there is nothing to index.
    """
    name = config.dataset
    form = "arrays" if name in INFOS else "samples made as they are read"
    if name in sentence_pairs.NAMES:
        form = "sentence pairs"
    elif name not in INFOS and not name.startswith("synthetic"):
        found = image_datasets.locate(name, config.data_dir)
        if found.form == "tfrecord":
            return found
        form = found.origin
    raise DataError(f"{name} is {form}: there is nothing to index; only TFRecord shards need it")
