"""The sum of a step's gradients over the world, sent while the backward pass still computes.

    g = Σ_ranks g_rank

The gradients are cut into buckets (`rules/buckets.py`). A bucket is one flat buffer and one
message of Horovod, sent as soon as its gradients are there. The last one waits for all gradients of
this rank, and carries what the ranks agree on in a step beside them. So every message has the same
size in every step, and with it the same order of sums.

With 16 bits on the wire (bf16, fp16) a bucket goes in two messages. Each rank gets its own part of
the bucket from all ranks, sums it in float32 in the order of the ranks, and the sums are gathered.
So every rank has the same bits, and a number is rounded once before the sum and once after it:

    |found - g| ≤ u·Σ|g_rank| + u·|g| + O(u²)    u = 2⁻⁸ for bf16, 2⁻¹¹ for fp16

What the ranks agree on goes as it is, in a message of its own.
"""

import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ba_dist.comm import Comm
from ba_dist.optim.flat import flat, flat_size, pieces
from ba_dist.rules.buckets import buckets

# What is sent in 16 bits is rounded to these. Horovod does not know bf16: bits travel as float16,
# with which it only moves them.
_HALF = {"bf16": tf.bfloat16, "fp16": tf.float16}


class WorldSum:
    """Sums the gradients of some variables, and what is agreed beside them, over the world.

    After the graph has run, `ready_at` and `summed_at` are the seconds of `time.perf_counter` at
    which this rank's last gradient was ready, and the last sum was there.

    Args:
        variables: that the gradients are of.
        comm: the world.
        bucket_bytes: of gradients that travel together at most; 0 for all.
        wire: bf16 or fp16, what gradients are rounded to on the way; else they go as they are.
    """

    def __init__(
        self, variables: Sequence[Any], comm: Comm, *, bucket_bytes: int, wire: str | None = None
    ):
        self._comm = comm
        self._half = _HALF.get(wire or "")
        self._shapes = [v.shape for v in variables]
        sizes = [v.shape.num_elements() * v.dtype.size for v in variables]
        self.buckets = buckets(sizes, bucket_bytes)
        self.ready_at = tf.Variable(0.0, trainable=False, dtype=tf.float64)
        self.summed_at = tf.Variable(0.0, trainable=False, dtype=tf.float64)

    def __call__(self, gradients: Sequence[Any], agreed: Sequence[Any]) -> tuple[list[Any], Any]:
        """Inside of the graph of a step.

        A network's gradients are too large for the cache, so they are passed over as few times as
        can be: flattened into their bucket, summed there, and left there.

        Args:
            gradients: of the variables, in their order.
            agreed: tensors of the same dtype, with shapes that are known, to be summed as well.

        Returns:
            The flat sum of each bucket, which `unpack` takes apart, and that of `agreed`, as
            `flat` has them.
        """
        flats = [flat([gradients[i] for i in bucket]) for bucket in self.buckets[:-1]]
        last, rest = [gradients[i] for i in self.buckets[-1]], list(agreed)
        if self._half is None:
            flats.append(flat([*last, *rest]))
        else:
            flats += [flat(last), flat(rest)]
        with tf.control_dependencies(flats):
            ready = self.ready_at.assign(_clock())
        with tf.control_dependencies([ready]):
            flats[-1] = tf.identity(flats[-1])
        sums = [self._sum(one, i, i == len(flats) - 1) for i, one in enumerate(flats)]
        with tf.control_dependencies(sums):
            self.summed_at.assign(_clock())
        if self._half is None:
            size = flat_size(last)
            sums[-1:] = [sums[-1][:size], sums[-1][size:]]
        return sums[:-1], sums[-1]

    def _sum(self, buffer: Any, number: int, agreed: bool) -> Any:
        if self._half is None or agreed:
            return self._comm.allreduce(buffer, name=f"step-{number}")
        ranks, size = self._comm.world_size, buffer.shape[0]
        part = -(-size // ranks)
        bits = tf.pad(self._bits(buffer), [[0, ranks * part - size]])
        mine = self._comm.alltoall(tf.reshape(bits, [ranks, part]), name=f"parts-{number}")
        mine = tf.reshape(mine, [ranks, part])
        # Not tf.reduce_sum, which sums in another order where there are many ranks.
        _, total = tf.while_loop(
            lambda rank, _: rank < ranks,
            lambda rank, total: [rank + 1, total + self._numbers(mine[rank], buffer.dtype)],
            [tf.constant(1), self._numbers(mine[0], buffer.dtype)],
            parallel_iterations=1,
            maximum_iterations=ranks - 1,
        )
        whole = self._comm.allgather(self._bits(total), name=f"sums-{number}")
        return self._numbers(tf.reshape(whole, [ranks * part])[:size], buffer.dtype)

    def _bits(self, numbers: Any) -> Any:
        return tf.bitcast(tf.cast(numbers, self._half), tf.float16)

    def _numbers(self, bits: Any, dtype: Any) -> Any:
        return tf.cast(tf.bitcast(bits, self._half), dtype)

    def unpack(self, flats: Sequence[Any]) -> list[Any]:
        """The gradients of the variables, in their order, from the flat buffers of all buckets."""
        made: dict[int, Any] = {}
        for buffer, bucket in zip(flats, self.buckets, strict=True):
            shapes = [self._shapes[i] for i in bucket]
            made |= zip(bucket, pieces(buffer, shapes), strict=True)
        return [made[i] for i in range(len(made))]


def _clock() -> Any:
    # tf.timestamp refuses to work where operations must be deterministic.
    return tf.numpy_function(time.perf_counter, [], tf.float64)
