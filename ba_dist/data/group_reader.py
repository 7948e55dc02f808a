"""Reads the batches of a group ahead of training, each record once per group (or not).

Three modes, the same batches bit for bit:

    replicate     every lane reads and decodes all b records: what users have without groups
    broadcast     lane 0 reads, the group gets the encoded records, every lane decodes: the paper
    cooperative   lane l reads and decodes the l-th part, the group gathers the decoded images
"""

import hashlib
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ba_dist.comm import Bytes, Channel
from ba_dist.data.sources import Images, Labels, Source
from ba_dist.sampling import Permutation, step_positions, steps_per_epoch
from ba_dist.topology import Layout


@dataclass(frozen=True)
class GroupBatch:
    """The b samples that a group holds in a step, the same on all its lanes.

    Args:
        step: since the start of training.
        epoch: it belongs to.
        sample_ids: int64 [b].
        images: b images uint8 [H, W, C].
        labels: int64 [b].
    """

    step: int
    epoch: int
    sample_ids: npt.NDArray[np.int64]
    images: Images
    labels: Labels

    def sha256(self) -> str:
        """Digest of the batch before augmentation."""
        digest = hashlib.sha256(self.labels.tobytes())
        for image in self.images:
            digest.update(repr(image.shape).encode())
            digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()


class GroupSampler:
    """(step) → the epoch and the sample ids of one group."""

    def __init__(self, num_samples: int, seed: int, layout: Layout, group: int):
        self.num_samples = num_samples
        self.seed = seed
        self.layout = layout
        self.group = group
        self.steps_per_epoch = steps_per_epoch(num_samples, layout.batch_size)
        self._order = Permutation(num_samples, seed, 0)
        self._epoch = 0

    def __call__(self, step: int) -> tuple[int, npt.NDArray[np.int64]]:
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = Permutation(self.num_samples, self.seed, epoch), epoch
        layout = self.layout
        positions = step_positions(step_in_epoch, self.group, layout.batch_size, layout.group_batch)
        return epoch, self._order(positions)


def read_group(
    source: Source, ids: npt.NDArray[np.int64], channel: Channel, mode: str
) -> tuple[Images, Labels]:
    """The images and labels of these samples on every lane; collective over the group.

    Args:
        source: the samples.
        ids: int64 [b], the same on all lanes.
        channel: the ranks of the group.
        mode: replicate, broadcast or cooperative.

    Returns:
        b images uint8 [H, W, C], labels int64 [b].
    """
    if mode == "replicate" or channel.size == 1:
        return source.decode(source.read(ids))
    if mode == "broadcast":
        return source.decode(
            _broadcast(source.read(ids) if channel.rank == 0 else [], ids, channel)
        )
    first, last = (len(ids) * lane // channel.size for lane in (channel.rank, channel.rank + 1))
    part = source.decode(source.read(ids[first:last]))
    return _gather(*part, len(ids), channel)


def _broadcast(records: list[bytes], ids: npt.NDArray[np.int64], channel: Channel) -> list[bytes]:
    sizes = np.array([len(r) for r in records] or [0] * len(ids), np.int64)
    channel.broadcast(sizes)
    joined = np.frombuffer(b"".join(records), np.uint8) if records else _empty(sizes)
    pieces = np.split(channel.broadcast(joined), np.cumsum(sizes)[:-1])
    return [piece.tobytes() for piece in pieces]


def _gather(images: Images, labels: Labels, total: int, channel: Channel) -> tuple[Images, Labels]:
    """All lanes' parts behind one another. Row i of the header: H, W, C and label of an image."""
    widest = -(-total // channel.size)
    header = np.zeros((widest, 4), np.int64)
    for row, image, label in zip(header, images, labels, strict=False):
        row[:] = (*image.shape, label)
    headers = channel.gather_all(header)
    bounds = [total * lane // channel.size for lane in range(channel.size + 1)]
    rows = [headers[lane, : bounds[lane + 1] - bounds[lane]] for lane in range(channel.size)]
    counts = np.array([r[:, :3].prod(axis=1).sum() for r in rows], np.int64)
    mine = np.concatenate([i.reshape(-1) for i in images]) if images else np.zeros(0, np.uint8)
    pixels = channel.concatenate(mine, counts)
    table = np.concatenate(rows)
    ends = np.cumsum(table[:, :3].prod(axis=1))[:-1]
    pieces = np.split(pixels, ends)
    shaped = [p.reshape(h, w, c) for p, (h, w, c, _) in zip(pieces, table, strict=True)]
    return shaped, table[:, 3].copy()


def _empty(sizes: npt.NDArray[np.int64]) -> Bytes:
    return np.empty(int(sizes.sum()), np.uint8)


class GroupReader:
    """The batches of steps `first` … `last`-1, read ahead in a thread of its own.

    The thread may be at most `prefetch` batches ahead of the steps that training has begun, which
    `advance` counts. Training begins the same steps on every rank, so all lanes make the same
    exchanges even when a run is stopped early: nobody waits for a lane that has gone.

    Args:
        source: the samples.
        sampler: step → epoch and sample ids.
        channel: the ranks of the group, on a communicator of the reader's own.
        mode: replicate, broadcast or cooperative.
        first: step to begin with.
        last: step to end before.
        prefetch: batches ahead.
    """

    def __init__(
        self,
        source: Source,
        sampler: GroupSampler,
        channel: Channel,
        mode: str,
        first: int,
        last: int,
        prefetch: int = 2,
    ):
        self._source, self._sampler, self._channel, self._mode = source, sampler, channel, mode
        self._first, self._last = first, last
        self._allowed = first + prefetch
        self._changed = threading.Condition()
        self._ready: deque[GroupBatch] = deque()
        self._closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="group-reader", daemon=True)
        self._thread.start()

    def advance(self) -> None:
        """Training begins its next step: one more batch may be read ahead."""
        with self._changed:
            self._allowed += 1
            self._changed.notify_all()

    def __iter__(self) -> Iterator[GroupBatch]:
        """The batches in order of steps; raises what the thread failed of."""
        for _ in range(self._first, self._last):
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._failure or self._closing)
                if self._failure:
                    raise self._failure
                if not self._ready:
                    return
                batch = self._ready.popleft()
            yield batch

    def close(self) -> None:
        """Ends the thread after the exchanges that the other lanes count on."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._source.counters.bytes_exchanged = self._channel.bytes_sent

    def _run(self) -> None:
        try:
            for step in range(self._first, self._last):
                with self._changed:
                    while step >= self._allowed:
                        if self._closing:
                            return
                        self._changed.wait()
                batch = self._read(step)
                with self._changed:
                    self._ready.append(batch)
                    self._changed.notify_all()
        except BaseException as error:  # handed to the thread that asks for the next batch
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _read(self, step: int) -> GroupBatch:
        epoch, ids = self._sampler(step)
        images, labels = read_group(self._source, ids, self._channel, self._mode)
        return GroupBatch(step, epoch, ids, images, labels)
