"""Photographs to read: 500×375 JPEGs of about 87 to 100 kB, made from scikit-learn's two.

Real photographs, because a decoder's time depends on what the image shows. Every one is another
crop, mirrored or not, of another brightness, so no two files are the same.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ba_dist.data.sources import shard_index

HEIGHT, WIDTH = 375, 500
SMALLEST, LARGEST = 87_000, 100_000
CLASSES = 1000
_FACTS = "photos.json"


def encode(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A JPEG with 4:2:0 colours, of the quality that brings it nearest to 87 … 100 kB."""
    low, high = 90, 99
    while True:
        quality = (low + high) // 2
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
        size = buffer.tell()
        if SMALLEST <= size <= LARGEST or low >= high:
            return buffer.getvalue()
        low, high = (quality + 1, high) if size < SMALLEST else (low, quality)


def photographs(count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` JPEGs, the same for the same seed."""
    from sklearn.datasets import load_sample_images

    originals = load_sample_images().images
    numbers = np.random.default_rng(seed)
    for i in range(count):
        original = originals[i % len(originals)]
        top = numbers.integers(original.shape[0] - HEIGHT + 1)
        left = numbers.integers(original.shape[1] - WIDTH + 1)
        crop = original[top : top + HEIGHT, left : left + WIDTH]
        crop = crop[:, :: numbers.choice([-1, 1])] * numbers.uniform(0.8, 1.2)
        yield encode(crop.clip(0, 255).astype(np.uint8))


def make_shards(folder: Path, count: int, shards: int = 4) -> Path:
    """TFRecord shards named and filled as ImageNet's are; kept ones of the same kind are reused.

    Args:
        folder: gets train-00000-of-0000N … and validation-00000-of-00001 with one photograph.
        count: photographs to train on.
        shards: files to put them in.
    """
    facts = {"photographs": count, "shards": shards}
    if _there(folder, facts):
        return folder
    from tensorflow.io import TFRecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    for index in folder.glob(f"*{shard_index.SUFFIX}"):
        index.unlink()  # of other shards, which are written over
    jpegs = photographs(count)
    for shard in range(shards):
        with TFRecordWriter(str(folder / f"train-{shard:05d}-of-{shards:05d}")) as file:
            for i in range(count * shard // shards, count * (shard + 1) // shards):
                file.write(_example(next(jpegs), 1 + i % CLASSES))
    with TFRecordWriter(str(folder / "validation-00000-of-00001")) as file:
        file.write(_example(next(photographs(1)), 1))
    (folder / _FACTS).write_text(json.dumps(facts))
    return folder


def make_folders(folder: Path, count: int) -> Path:
    """The same photographs as files: train/CLASS/NAME.jpeg and validation/CLASS/NAME.jpeg."""
    facts = {"photographs": count, "folders": True}
    if _there(folder, facts):
        return folder
    for i, encoded in enumerate(photographs(count)):
        for split in ["train", "validation"][: 1 + (i < CLASSES)]:
            path = folder / split / f"n{i % CLASSES:08d}" / f"{i:06d}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded)
    (folder / _FACTS).write_text(json.dumps(facts))
    return folder


def _there(folder: Path, facts: dict[str, object]) -> bool:
    path = folder / _FACTS
    return path.is_file() and json.loads(path.read_text()) == facts


def _example(encoded: bytes, label: int) -> bytes:
    """A tf.train.Example message with the features of ImageNet's scripts."""
    from tensorflow.train import BytesList, Example, Feature, Features, Int64List

    features = {
        "image/encoded": Feature(bytes_list=BytesList(value=[encoded])),
        "image/class/label": Feature(int64_list=Int64List(value=[label])),
    }
    return Example(features=Features(feature=features)).SerializeToString()
