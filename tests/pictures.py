"""Small datasets of pieces of real photographs, in every form that is read.

Every function returns what it wrote: a list of `Sample`s for each split, in the order of sample
ids. Sizes vary about 120–200 pixels unless they are given.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import simplejpeg

from ba_dist.data.sources.tfrecord import frame

SPLITS = {"train": 1, "val": 2}


@dataclass(frozen=True)
class Sample:
    """An encoded picture, the pixels it decodes to, and its class."""

    jpeg: bytes
    label: int

    @property
    def pixels(self):
        """uint8 [H, W, 3]."""
        return simplejpeg.decode_jpeg(self.jpeg)


@cache
def _photographs():
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


def crop(seed, low=120, high=200):
    """A piece of a photograph, uint8 [H, W, 3]; `seed` names it."""
    draw = np.random.default_rng(seed)
    photograph = _photographs()[draw.integers(2)]
    height, width = draw.integers(low, high + 1, 2)
    top, left = (
        draw.integers(0, n - m) for n, m in zip(photograph.shape[:2], (height, width), strict=True)
    )
    return np.ascontiguousarray(photograph[top : top + height, left : left + width])


def samples(split, classes, per_class, low=120, high=200):
    """Samples of a split, class by class: the same ones for the same arguments."""
    return [
        Sample(simplejpeg.encode_jpeg(crop([SPLITS[split], label, i], low, high), 90), label)
        for label in range(classes)
        for i in range(per_class)
    ]


def example(sample, image, label, first_label):
    """A serialised tf.train.Example with a few other features beside the sample."""
    from ba_dist.data.sources.examples import _example

    message = _example()()
    features = message.features.feature
    features[image].bytes_list.value.append(sample.jpeg)
    features[label].int64_list.value.append(sample.label + first_label)
    features["image/height"].int64_list.value.append(sample.pixels.shape[0])
    features["image/format"].bytes_list.value.append(b"JPEG")
    return message.SerializeToString()


def make_folder(path, classes=3, per_class=4, **sizes):
    """PATH/train/CLASS/NAME.JPEG and PATH/val/CLASS/NAME.JPEG."""
    made = {split: samples(split, classes, per_class, **sizes) for split in SPLITS}
    for split, all_samples in made.items():
        for i, sample in enumerate(all_samples):
            folder = Path(path) / split / f"class-{sample.label:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"picture-{i:05d}.JPEG").write_bytes(sample.jpeg)
    return made


def make_tfrecords(path, classes=3, per_class=4, shards=2, first_label=1, names=None, **sizes):
    """PATH/train-00000-of-00002 … and PATH/validation-00000-of-00002 …, ImageNet's by default.

    Args:
        path: a folder.
        classes, per_class: how many samples there are.
        shards: of each split; sample i is in shard i // (N / shards).
        first_label: stored for class 0.
        names: of the features (picture, label).
        sizes: `low` and `high` of the pictures.
    """
    image, label = names or ("image/encoded", "image/class/label")
    made = {split: samples(split, classes, per_class, **sizes) for split in SPLITS}
    Path(path).mkdir(parents=True, exist_ok=True)
    for split, all_samples in made.items():
        word = {"train": "train", "val": "validation"}[split]
        for number, part in enumerate(np.array_split(np.arange(len(all_samples)), shards)):
            records = [frame(example(all_samples[i], image, label, first_label)) for i in part]
            file = Path(path) / f"{word}-{number:05d}-of-{shards:05d}"
            file.write_bytes(b"".join(records))
    return made


def make_array_record(path, classes=3, per_class=4, files=2, **sizes):
    """PATH/train-00000.array_record … and PATH/val-00000.array_record … of TFDS-like Examples."""
    from array_record.python.array_record_module import ArrayRecordWriter

    made = {split: samples(split, classes, per_class, **sizes) for split in SPLITS}
    Path(path).mkdir(parents=True, exist_ok=True)
    for split, all_samples in made.items():
        for number, part in enumerate(np.array_split(np.arange(len(all_samples)), files)):
            file = Path(path) / f"{split}-{number:05d}.array_record"
            writer = ArrayRecordWriter(str(file), "group_size:1")
            for i in part:
                writer.write(example(all_samples[i], "image", "label", 0))
            writer.close()
    return made
