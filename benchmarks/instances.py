"""What it costs to make an instance, in milliseconds of one core.

    python benchmarks/instances.py

Each row is one piece of work of the input: an image is decoded, or the pixels of a copy are made,
by one thread, or the batch is standardised by TensorFlow. The works take turns. What the pipeline
adds to them is in the rows `batch`: draws, memory and Python for a whole batch, with the pixels.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import click
import numpy as np
import photos
from harness import Report, Table, count_option, measure, one_message, output_option, output_path

from ba_dist import runtime
from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation
from ba_dist.data.batch import pack
from ba_dist.data.sources import Image, ImageInfo, Workers
from ba_dist.data.sources.images import decode_image
from ba_dist.rules.keys import augmentation_keys
from ba_dist.tasks.classification import Classification

runtime.quiet()

PHOTOGRAPHS, SIDE, BATCH, COPIES = 16, 224, 64, 4
SMALL = Augment(pad_crop=4, flip=True)
BOXES = Augment(crop="random-resized", flip=True)
# (what, augmentations, side of the images; 0 for photographs of 500x375)
RENDERED = (
    ("random-resized crop, flip", BOXES, 0),
    ("resize, random crop, flip", Augment(crop="resize-random", flip=True), 0),
    ("AutoAugment imagenet", Augment(auto_augment="imagenet"), SIDE),
    ("AutoAugment cifar10", Augment(auto_augment="cifar10"), SIDE),
    ("RandAugment 2", Augment(rand_augment=2), SIDE),
    ("jitter", Augment(jitter=0.4), SIDE),
    ("pad, crop, flip", SMALL, 32),
    ("AutoAugment cifar10", Augment(auto_augment="cifar10"), 32),
    ("pad, crop, flip, grey", SMALL, 28),
)


def works(decoded: Sequence[Image], encoded: Sequence[bytes]) -> dict[tuple[str, str], Any]:
    """(what, size) → (a function, for how many images one call is)."""
    large = f"{photos.WIDTH}x{photos.HEIGHT}"
    made: dict[tuple[str, str], Any] = {}

    def decode() -> None:
        for jpeg in encoded:
            decode_image(jpeg)

    made["decode", large] = decode, len(encoded)
    for what, augment, side in RENDERED:
        images = [cut(image, side) for image in decoded]
        task = task_of(augment, images[0])
        size = f"{side}x{side}" if side else large
        made[what, size] = rendering(task, images), BATCH
    task = task_of(BOXES, decoded[0])
    made["evaluation", large] = evaluating(task, decoded), len(decoded)
    made["standardised, in the step", f"{SIDE}x{SIDE}"] = finishing(task), BATCH
    made["batch of 4 copies", large] = packing(task, decoded), COPIES * len(decoded)
    small = [cut(image, 28) for image in decoded]
    task = task_of(SMALL, small[0])
    made["batch of 4 copies, grey", "28x28"] = packing(task, small), COPIES * len(small)
    return made


def cut(image: Image, side: int) -> Image:
    """Of a photograph the middle, grey where it is as small as Fashion-MNIST; 0 for all of it."""
    if not side:
        return image
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    channels = 1 if side == 28 else 3
    return np.ascontiguousarray(image[top : top + side, left : left + side, :channels])


def task_of(augment: Augment, image: Image) -> Classification:
    """The task that makes instances of images like this one."""
    channels = image.shape[2]
    shape = (0, 0, channels) if augment.crop != "none" else image.shape
    info = ImageInfo("measured", shape, 10, (0.5,) * channels, (0.25,) * channels)
    return Classification(Augmentation(augment, info, SIDE))


def keys_of(count: int) -> Any:
    """uint64 [count]."""
    return augmentation_keys(0, 0, np.arange(count), 0)


def rendering(task: Classification, images: Sequence[Image]) -> Callable[[], None]:
    """Makes the pixels of a batch of instances, whose parameters are drawn."""
    chosen = [images[i % len(images)] for i in range(BATCH)]
    shapes = np.array([image.shape for image in chosen])
    drawn, rows = task.draw(keys_of(BATCH), shapes, BATCH), task.allocate(BATCH)

    def render() -> None:
        for i, image in enumerate(chosen):
            task.render(image, drawn, i, rows[i])

    return render


def evaluating(task: Classification, images: Sequence[Image]) -> Callable[[], None]:
    """Makes the plain pixels of all images."""
    rows = task.allocate(len(images))

    def plain() -> None:
        for image, row in zip(images, rows, strict=True):
            task.plain(image, row)

    return plain


def packing(task: Classification, images: Sequence[Image]) -> Callable[[], None]:
    """Makes all that the pipeline makes of a batch."""
    keys, labels = keys_of(COPIES * len(images)), np.zeros(len(images), np.int64)
    one = Workers(1)

    def make() -> None:
        pack(task, list(images), labels, keys, ghost_batch=len(images), workers=one)

    return make


def finishing(task: Classification) -> Callable[[], None]:
    """Makes of a batch of pixels what the network gets, as at the beginning of a step's graph."""
    import tensorflow as tf

    rows, labels = task.allocate(BATCH), np.zeros(BATCH, np.int64)
    rows[...] = 77
    packed, finish = task.pack(rows, labels, {}), tf.function(task.finish)
    return lambda: finish(packed)


def milliseconds(work: Callable[[], None], images: int) -> float:
    """Processor time for an image."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1000 / images


@click.command(context_settings={"max_content_width": 100})
@count_option("--trials", 20, "Turns of each work; the median is taken over them.")
@output_option
@one_message
def main(trials, output):
    """Measure what an instance costs, in milliseconds of one core.

    Example of a short run:

        python benchmarks/instances.py --trials 3
    """
    encoded = list(photos.photographs(PHOTOGRAPHS))
    measured = works([decode_image(jpeg) for jpeg in encoded], encoded)
    report = Report("instances", {"trials": trials}, {"threads": 1})
    for work, _ in measured.values():
        work()
    taken: dict[tuple[str, str], list[float]] = {name: [] for name in measured}
    for _ in range(trials):
        for name, (work, images) in measured.items():
            taken[name].append(milliseconds(work, images))
    made = Table("Milliseconds of one core for an image", ["work", "image", "ms", "+-"])
    for (what, size), values in taken.items():
        found = measure(values)
        report.results.append({"work": what, "image": size, "milliseconds": found.as_dict()})
        made.add(what, size, found.median, found.deviation)
    report.tables.append(made)
    path = output_path("instances", output)
    report.write(path)
    report.show(path)


if __name__ == "__main__":
    main()
