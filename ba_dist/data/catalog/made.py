"""Name → samples that are made, not found: of images, of a text, of sentence pairs."""

import dataclasses
from collections.abc import Callable

from ba_dist.config import Data
from ba_dist.data.catalog import image_datasets, sentence_pairs, text_datasets
from ba_dist.data.catalog.found import Found, Opener, Split
from ba_dist.data.catalog.splits import SPLITS, wanted_samples
from ba_dist.data.sources import ImageInfo, Source
from ba_dist.data.sources.synthetic import (
    SyntheticColourSource,
    SyntheticJpegSource,
    SyntheticSource,
)
from ba_dist.data.text import made_text

_SAMPLES = {"train": 50_000, "validation": 1_000}
_JPEG_SAMPLES = {"train": 1_281_167, "validation": 50_000}
_SENTENCES = {"train": 10_000, "validation": 500}
_TEXT = "sentences of a small grammar"
_SUBWORDS = 400  # there are not many different words


def _synthetic(config: Data) -> Found:
    size, channels = config.image_size, config.image_channels
    shape = (size, size, channels)
    info = ImageInfo(config.dataset, shape, 10, (0.5,) * channels, (0.29,) * channels)
    open_noise = _open_colour if config.dataset == "synthetic-colour" else _open_synthetic
    return Found(info, "made as it is read", _made(config, _SAMPLES, open_noise))


def _synthetic_jpeg(config: Data) -> Found:
    info = ImageInfo("synthetic-jpeg", (0, 0, 3), 1000, image_datasets.MEAN, image_datasets.STD)
    splits = _made(config, _JPEG_SAMPLES, _open_synthetic_jpeg)
    return Found(info, "JPEGs made in memory", splits)


def _synthetic_text(config: Data) -> Found:
    train, validation = (
        made_text.sentences(_SENTENCES[split], seed) for seed, split in enumerate(SPLITS)
    )
    return text_datasets.found_in(config, text_datasets.Lines(train, validation, _TEXT))


def _synthetic_pairs(config: Data) -> Found:
    texts = {split: made_text.pairs(_SENTENCES[split], seed) for seed, split in enumerate(SPLITS)}
    config = dataclasses.replace(config, subwords=config.subwords or _SUBWORDS)
    return sentence_pairs.found_in(config, texts, _TEXT)


# Tests and scripts may add their own.
MADE: dict[str, Callable[[Data], Found]] = {
    "synthetic": _synthetic,
    "synthetic-colour": _synthetic,
    "synthetic-jpeg": _synthetic_jpeg,
    "synthetic-text": _synthetic_text,
    "synthetic-pairs": _synthetic_pairs,
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
