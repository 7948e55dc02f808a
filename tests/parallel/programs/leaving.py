"""Leaves pipelines early, at every batch, and says how often that went well. TRIES

script     the pipeline of people's own scripts, by breaking out of the loop over it
training   a run's own pipeline; nothing may be rendered once it is closed, because the
           pictures lie in shared memory that is given back
"""

import sys
import threading
import time

import numpy as np

from ba_dist import runtime
from ba_dist.comm import start

comm = start()
runtime.prepare(comm.node.rank, comm.node.size, comm.cores)  # faster than by itself

from ba_dist import Augment, input_pipeline  # noqa: E402
from ba_dist.config import Batch, Config, layout_of  # noqa: E402
from ba_dist.data.augment import Augmentation  # noqa: E402
from ba_dist.data.pipeline import open_pipeline  # noqa: E402
from ba_dist.data.sources import ArraySource, ImageInfo  # noqa: E402
from ba_dist.tasks.classification import Classification  # noqa: E402

AUGMENT = Augment(pad_crop=2, flip=True)
tries = int(sys.argv[1])
pixels = np.random.default_rng(0).integers(0, 256, (640, 24, 24, 3), np.uint8)
labels = np.arange(640) % 10


def leave_a_script(attempt: int) -> bool:
    batches = input_pipeline(pixels, labels, comm, 32, 2, steps=50, augment=AUGMENT, seed=attempt)
    wanted = attempt % 7
    for taken, (images, _) in enumerate(batches):
        if taken == wanted:
            return bool(images.shape == (32 * 2 // comm.world_size, 24, 24, 3))
    return False


class Watched(Augmentation):
    """Counts what is rendered, and takes its time, so that much is under way when it is left."""

    rendered = 0

    def render(self, image, parameters, i, out):
        time.sleep(0.001 * (i % 8 == 0))
        super().render(image, parameters, i, out)
        self.rendered += 1


def leave_a_training(attempt: int) -> bool:
    info = ImageInfo("test", (24, 24, 3), 10, (0.5,) * 3, (0.25,) * 3)
    source = ArraySource(info, pixels, labels, "test")
    config = Config("test", batch=Batch(batch_size=32, multiplicity=2), augment=AUGMENT)
    augmentation = Watched(AUGMENT, info)
    layout = layout_of(config, comm.world_size)
    with open_pipeline(
        config,
        source,
        Classification(augmentation),
        layout=layout,
        comm=comm,
        first=attempt,
        last=500,
    ) as pipeline:
        source = iter(pipeline)  # held on to, as a training loop does
        for _ in range(attempt % 7 + 1):
            batch = next(source)
    before = augmentation.rendered
    ours = {"augment", "group-reader", "group-gather"}
    ended = not ours & {thread.name for thread in threading.enumerate()}
    comm.world.barrier()
    return bool(ended and batch.step == attempt + attempt % 7 and augmentation.rendered == before)


for kind, leave in (("script", leave_a_script), ("training", leave_a_training)):
    good = sum(leave(attempt) for attempt in range(tries))
    print(f"rank {comm.rank}, {kind}: {good} of {tries}", flush=True)
# A script may also end while it still holds on to one that it has left.
held = iter(input_pipeline(pixels, labels, comm, 32, 2, steps=50, augment=AUGMENT))
next(held)
