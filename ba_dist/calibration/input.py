"""Seconds of a core to decode a JPEG and to make an instance of it."""

import time

import numpy as np

from ba_dist import experiment
from ba_dist.config import Config, override
from ba_dist.data.catalog import open_source
from ba_dist.rules.keys import augmentation_keys

_ROUND = 32  # records of a round: about a rank's share of a step


def input_seconds(budget: float) -> tuple[float, float, float]:
    """(decode, augment, relative deviation of a round) of this rank, on one core.

    The JPEGs are of 500x375 and in memory; an instance is a random-resized crop of 224x224,
    mirrored or not.

    Args:
        budget: seconds to take, about.
    """
    changes = {"dataset": "synthetic-jpeg", "image_size": 224, "train_samples": 256}
    changes |= {"crop": "random-resized", "flip": True, "resize": 256}
    config = override(Config("calibrate"), changes)
    source = open_source(config.data, "train")
    task = experiment.task_of(config, source.info)
    records = [source.read(i) for i in range(_ROUND)]
    rows, ids = task.allocate(_ROUND), np.arange(_ROUND)
    decodes: list[float] = []
    augments: list[float] = []
    ends = time.perf_counter() + budget
    while len(decodes) < 3 or (time.perf_counter() < ends and len(decodes) < 200):
        begun = time.perf_counter()
        images = [source.decode(record)[0] for record in records]
        decoded = time.perf_counter()
        keys = augmentation_keys(len(decodes), 0, ids, np.zeros_like(ids))
        drawn = task.draw(keys, np.array([image.shape for image in images]), _ROUND)
        for i, image in enumerate(images):
            task.render(image, drawn, i, rows[i])
        decodes.append((decoded - begun) / _ROUND)
        augments.append((time.perf_counter() - decoded) / _ROUND)
    both = np.array(decodes) + np.array(augments)
    spread = float(both.std(ddof=1) / both.mean())
    return float(np.median(decodes)), float(np.median(augments)), spread
