"""Lane 1 meets a corrupt record in a batch that was read ahead; then all leave the pipeline."""

import time

import numpy as np

from ba_dist import runtime
from ba_dist.comm import start

comm = start()
runtime.prepare(comm.node.rank, comm.node.size, comm.cores)  # faster than by itself

from ba_dist.config import Augment, Batch, Config, layout_of  # noqa: E402
from ba_dist.data.augment import Augmentation  # noqa: E402
from ba_dist.data.pipeline import open_pipeline  # noqa: E402
from ba_dist.data.sources import ArraySource, ImageInfo  # noqa: E402
from ba_dist.errors import CorruptRecord  # noqa: E402
from ba_dist.tasks.classification import Classification  # noqa: E402

pixels = np.zeros((640, 8, 8, 1), np.uint8)
info = ImageInfo("test", (8, 8, 1), 10, (0.5,), (0.25,))


class Rotten(ArraySource):
    """From its 33rd record on, lane 1 can read nothing: the third batch, of which it reads half."""

    records = 0

    def read(self, sample_id):
        self.records += 1
        if comm.rank == 1 and self.records > 32:
            raise CorruptRecord("it is rotten")
        return super().read(sample_id)


source = Rotten(info, pixels, np.arange(640) % 10, "test")
config = Config("test", batch=Batch(batch_size=32, multiplicity=2), augment=Augment(flip=True))
layout = layout_of(config, comm.world_size)
task = Classification(Augmentation(config.augment, info))
with open_pipeline(config, source, task, layout=layout, comm=comm, first=0, last=20) as pipeline:
    next(iter(pipeline))
    while comm.rank == 1 and pipeline._reader._failure is None:
        time.sleep(0.01)
    comm.world.barrier()
print("left as if nothing had been", flush=True)
