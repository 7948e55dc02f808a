"""Name → what one process finds of a dataset on disk: enough for any rank to open it.

The process that finds lists folders and reads indexes; the catalog sends the result to all ranks.
"""

import dataclasses
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ba_dist.config import Data
from ba_dist.data.catalog import image_datasets, sentence_pairs, text_datasets
from ba_dist.data.catalog.image_datasets import Located
from ba_dist.data.catalog.prepare import INFOS, KINDS, array_name, prepare
from ba_dist.data.catalog.splits import SPLITS, wanted_samples
from ba_dist.data.sources import (
    ArraySource,
    DatasetInfo,
    ImageInfo,
    PackedPairs,
    PairsInfo,
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
from ba_dist.data.sources.synthetic import (
    SyntheticColourSource,
    SyntheticJpegSource,
    SyntheticSource,
)
from ba_dist.data.sources.text import TextInfo, TextSource, WindowSource, windows
from ba_dist.data.sources.tfrecord import TFRecordSource
from ba_dist.data.text import vocabulary
from ba_dist.data.text.subwords import END
from ba_dist.errors import DataError
from ba_dist.rules.order import subset_ids

Arrays = dict[str, npt.NDArray[Any]]
_SYNTHETIC_SAMPLES = {"train": 50_000, "validation": 1_000}
_SYNTHETIC_JPEG_SAMPLES = {"train": 1_281_167, "validation": 50_000}
_LOOKED_AT = 64


@dataclass(frozen=True)
class Split:
    """What was found of one split.

    Args:
        count: number of samples to use.
        open: (info, this split) → the source; a function of a module, so that it can be sent.
        facts: small values for `open`; file names are relative to the root.
        arrays: large arrays for `open`; each node has them once.
        root: the folder of the files, which may differ between nodes.
        sample: names of up to 64 files, spread over all, to look for on every node.
    """

    count: int
    open: "Opener"
    facts: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)
    root: Path = Path()
    sample: list[str] = field(default_factory=list)

    def paths(self, names: list[str]) -> list[Path]:
        """The paths of these files on this node."""
        return [self.root / name for name in names]

    def subset(self, wanted: int) -> "Split":
        """This split with an even share of its samples; see `subset_ids`."""
        arrays = self.arrays
        # In other forms the arrays do not have a row for each sample, and are small.
        if self.open is _open_arrays:
            rows = subset_ids(np.arange(wanted), wanted, self.count)
            arrays = {name: array[rows] for name, array in arrays.items()}
        return dataclasses.replace(self, count=wanted, arrays=arrays)


Opener = Callable[[Any, Split], Source]  # the info is that of its kind of samples


@dataclass(frozen=True)
class Found:
    """What was found of a dataset.

    Args:
        info: facts of the dataset.
        origin: where it is and in which form, for messages.
        splits: by the names of SPLITS.
    """

    info: DatasetInfo
    origin: str
    splits: dict[str, Split]


@dataclass
class Subset:
    """An even share of the samples of a source, in the order that they are stored in.

    Args:
        source: all samples.
        count: number of samples in the share.
    """

    source: Source
    count: int

    def __post_init__(self) -> None:
        self.info, self.counters = self.source.info, self.source.counters
        self.contents, self.stored = self.source.contents, self.source.stored
        self.decode = self.source.decode

    def __len__(self) -> int:
        return self.count

    def read(self, sample_id: int) -> bytes:
        return self.source.read(self._of_all(sample_id))

    def where(self, sample_id: int) -> str:
        return self.source.where(self._of_all(sample_id))

    def _of_all(self, sample_id: int) -> int:
        return int(subset_ids(sample_id, self.count, len(self.source)))


def open_split(info: DatasetInfo, split: Split) -> Source:
    """The source of a split that was found."""
    source = split.open(info, split)
    return source if len(source) == split.count else Subset(source, split.count)


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
        return _pairs(config)
    if config.dataset in text_datasets.TEXTS:
        return _text(config)
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


def _synthetic(config: Data) -> Found:
    size, channels = config.image_size, config.image_channels
    shape = (size, size, channels)
    info = ImageInfo(config.dataset, shape, 10, (0.5,) * channels, (0.29,) * channels)
    open_noise = _open_colour if config.dataset == "synthetic-colour" else _open_synthetic
    return Found(info, "made as it is read", _made(config, _SYNTHETIC_SAMPLES, open_noise))


def _synthetic_jpeg(config: Data) -> Found:
    info = ImageInfo("synthetic-jpeg", (0, 0, 3), 1000, image_datasets.MEAN, image_datasets.STD)
    splits = _made(config, _SYNTHETIC_JPEG_SAMPLES, _open_synthetic_jpeg)
    return Found(info, "JPEGs made in memory", splits)


# Name → samples that are made, not found. Tests and scripts may add their own.
MADE: dict[str, Callable[[Data], Found]] = {
    "synthetic": _synthetic,
    "synthetic-colour": _synthetic,
    "synthetic-jpeg": _synthetic_jpeg,
}


def _made(config: Data, counts: dict[str, int], open_made: Opener) -> dict[str, Split]:
    """Splits of samples that are made as they are read."""
    wanted = wanted_samples(config)
    counts = {split: wanted[split] or counts[split] for split in SPLITS}
    return {
        split: Split(counts[split], open_made, {"count": counts[split], "seed": seed})
        for seed, split in enumerate(SPLITS)
    }


def _open_synthetic(info: ImageInfo, split: Split) -> Source:
    return SyntheticSource(info, **split.facts)


def _open_colour(info: ImageInfo, split: Split) -> Source:
    return SyntheticColourSource(info, **split.facts)


def _open_synthetic_jpeg(info: ImageInfo, split: Split) -> Source:
    return SyntheticJpegSource(info, **split.facts)


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
        splits[split] = Split(len(arrays["labels"]), _open_arrays, {"digest": digest}, arrays)
    return Found(prepared.info, prepared.origin, splits)


def _open_arrays(info: ImageInfo, split: Split) -> Source:
    images, labels = split.arrays["images"], split.arrays["labels"]
    return ArraySource(info, images, labels, f"{split.facts['digest']}-{len(labels)}")


def _pairs(config: Data) -> Found:
    prepared = sentence_pairs.prepare(config)
    splits = {
        name: Split(
            len(arrays["row_ends"]), _open_pairs, {"digest": prepared.digests[name]}, arrays
        )
        for name, arrays in prepared.splits.items()
    }
    return Found(prepared.info, prepared.origin, splits)


def _open_pairs(info: PairsInfo, split: Split) -> Source:
    return PackedPairs(info, split.arrays, split.facts["digest"], END)


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


def _text(config: Data) -> Found:
    lines = text_datasets.locate(config.dataset, config.data_dir)
    words = vocabulary.of_lines(lines.train, config.least_count)
    train, validation = words.encode(lines.train), words.encode(lines.validation)
    info = TextInfo(
        config.dataset, len(words), words.digest(), words.end, config.bptt, config.context
    )
    spans = (len(train) - 1) // config.bptt
    if spans == 0:
        raise DataError(
            f"{lines.origin}: {len(train)} tokens to train on are no more than --bptt"
            f" {config.bptt}; use more text, or a smaller --bptt"
        )
    splits = {
        name: Split(
            count,
            opened,
            {"digest": hashlib.sha256(tokens.tobytes()).hexdigest()},
            {"tokens": tokens},
        )
        for name, tokens, count, opened in (
            ("train", train, spans, _open_spans),
            ("validation", validation, windows(len(validation), info), _open_windows),
        )
    }
    origin = f"{lines.origin}; {len(train)} tokens of {len(words)} words"
    return Found(info, origin, splits)


def _open_spans(info: TextInfo, split: Split) -> Source:
    # Fewer samples are the beginning of the text: what is read in a row must lie in a row.
    return TextSource(info, split.arrays["tokens"], split.count, split.facts["digest"])


def _open_windows(info: TextInfo, split: Split) -> Source:
    return WindowSource(info, split.arrays["tokens"], split.facts["digest"])


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
