"""Takes two batches of samples in memory with `--io-threads N` (0: none is said).

N. Prints whether workers have read, whether workers have drawn, and a digest of the instances.
"""

import hashlib
import sys
import threading

import numpy as np

from ba_dist import runtime
from ba_dist.comm import start
from ba_dist.config import override
from ba_dist.recipes import recipe
from ba_dist.rules.layout import Layout

runtime.quiet()

from ba_dist.data.augment import Augmentation  # noqa: E402  TensorFlow loads here
from ba_dist.data.pipeline import open_pipeline  # noqa: E402
from ba_dist.data.sources import ArraySource, ImageInfo  # noqa: E402
from ba_dist.tasks.classification import Classification  # noqa: E402

reading, rendering = set(), set()


class Watched(ArraySource):
    def read(self, sample_id):
        reading.add(threading.current_thread().name)
        return super().read(sample_id)


class Watching(Augmentation):
    def render(self, *arguments):
        rendering.add(threading.current_thread().name)
        super().render(*arguments)


threads = int(sys.argv[1])
config = override(recipe("quickstart"), {"batch_size": 32, "multiplicity": 4})
if threads:
    config = override(config, {"io_threads": threads})
pixels = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1), np.uint8)
info = ImageInfo("some", (28, 28, 1), 10, (0.5,), (0.5,))
source = Watched(info, pixels, np.arange(64) % 10, "some")
comm = start()
layout = Layout(comm.world_size, 4, 32)
digest = hashlib.sha256()
task = Classification(Watching(config.augment, info))
with open_pipeline(config, source, task, layout=layout, comm=comm, first=0, last=2) as pipeline:
    for batch in pipeline:
        digest.update(batch.inputs["images"])
workers = [any("worker" in name for name in names) for names in (reading, rendering)]
print(*workers, digest.hexdigest())
