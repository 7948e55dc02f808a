"""ba_dist's part of `group_io.py --ready`: instances as a step of ResNet-50 takes them.

A photograph's random box at 224 pixels, mirrored or not, float32 and standardised. All contenders
do this work; how they resize is theirs (ba_dist smooths, as Pillow does in torchvision; tf.image
takes one bilinear sample of each new pixel).
"""

from typing import Any

import rivals

from ba_dist.comm import Channel
from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation
from ba_dist.data.group.group_reader import GroupReader
from ba_dist.data.pipeline import InputPipeline
from ba_dist.data.sources import Source, Workers
from ba_dist.rules.layout import Layout
from ba_dist.tasks.classification import Classification


class _Held:
    """A reader that begins no more batches than it is told.

    Args:
        reader: of the group.
    """

    def __init__(self, reader: GroupReader):
        self._reader = reader
        self._owed = self._free = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def __iter__(self) -> Any:
        return iter(self._reader)

    def advance(self) -> None:
        """Lets the reader begin another batch, if it may."""
        if self._free:
            self._free -= 1
            self._reader.advance()
        else:
            self._owed += 1

    def allow(self, batches: int) -> None:
        """So many more batches may be begun."""
        now = min(self._owed, batches)
        self._owed -= now
        self._free = batches - now
        for _ in range(now):
            self._reader.advance()


class Ready:
    """ba_dist's pipeline, and what is in the step's graph before the network.

    Args:
        reader: of the group, which has read nothing yet.
        prefetch: batches that the reader may begin by itself.
        source: the photographs.
        layout: of the ranks, which are all one group.
        channel: of the group.
        pool: threads that augment.
    """

    def __init__(
        self,
        reader: GroupReader,
        prefetch: int,
        source: Source,
        layout: Layout,
        channel: Channel,
        pool: Workers,
    ):
        import tensorflow as tf

        augment = Augment(crop="random-resized", flip=True)
        task = Classification(Augmentation(augment, source.info, rivals.SIDE))
        self._finish = tf.function(task.finish)
        self._reader: Any = _Held(reader)
        self._pipeline = InputPipeline(
            self._reader, task, layout, rank=channel.rank, seed=0, workers=pool
        )
        self._batches = (self._finish(dict(batch.inputs)) for batch in self._pipeline)
        self._begun, self._taken = prefetch, 0

    def __call__(self, count: int) -> list[float]:
        # As many more are begun as are taken, and made to the end before others have their turn.
        behind = count + rivals.BEHIND
        self._reader.allow(self._taken + behind - self._begun)
        self._taken += behind
        self._begun = self._taken
        return rivals.arrivals(self._batches, behind)[:count]

    def close(self) -> None:
        """Ends its threads."""
        self._pipeline.close()
