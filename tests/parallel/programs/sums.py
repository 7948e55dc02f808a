"""Sums gradients over the world in buckets; says on rank 0 what was found, as JSON.

What is summed is drawn from (rank, variable), so that every rank can compute all sums itself.
"""

import json
import time

import numpy as np

from ba_dist import runtime
from ba_dist.comm import start

comm = start()
runtime.prepare(comm.node.rank, comm.node.size, comm.cores)
comm.start_horovod()

import tensorflow as tf  # noqa: E402

from ba_dist.optim.flat import pieces  # noqa: E402
from ba_dist.optim.world_sum import WorldSum  # noqa: E402

SHAPES = [(3, 5), (700,), (), (40, 11), (2, 3, 4), (1,), (513,)]
AGREED = [(7,), (), (2, 2)]
REPEATS = 20
LIMIT = 2000  # bytes: several buckets of several variables, and variables larger than it
found: dict = {}


def drawn(rank: int, number: int, shape: tuple) -> np.ndarray:
    """Numbers of very different size, so that the order of a sum shows in its last bits."""
    numbers = np.random.default_rng([rank, number])
    return numbers.normal(size=shape) * 10.0 ** numbers.uniform(-3, 3, shape)


def of_rank(rank: int, dtype: str) -> tuple[list, list]:
    """(gradients, what is agreed) of a rank."""
    arrays = [drawn(rank, i, shape).astype(dtype) for i, shape in enumerate([*SHAPES, *AGREED])]
    return arrays[: len(SHAPES)], arrays[len(SHAPES) :]


def summing(dtype: str, limit: int, wire: str | None = None, world=comm):
    """A graph that sums this rank's numbers; its gradients come as late as `pauses` says."""
    gradients, agreed = of_rank(comm.rank, dtype)
    world_sum = WorldSum([tf.constant(g) for g in gradients], world, bucket_bytes=limit, wire=wire)
    pauses = tf.Variable(np.zeros(len(SHAPES)))

    def late(tensor, seconds):
        time.sleep(seconds)
        return tensor

    @tf.function(autograph=False)
    def graph():
        came: list = []
        for i in reversed(range(len(SHAPES))):  # one after the other, as a backward pass
            with tf.control_dependencies(came[-1:]):
                tensor = tf.numpy_function(late, [gradients[i], pauses[i]], dtype, stateful=False)
            came.append(tf.ensure_shape(tensor, SHAPES[i]))
        flats, rest = world_sum(came[::-1], [tf.constant(a) for a in agreed])
        return world_sum.unpack(flats), pieces(rest, [tf.TensorShape(a.shape) for a in agreed])

    def run(seconds=None):
        pauses.assign(np.zeros(len(SHAPES)) if seconds is None else seconds)
        sums, rest = graph()
        return [t.numpy() for t in sums], [t.numpy() for t in rest], world_sum

    return run


def exact(dtype: str = "float64") -> tuple[list, list]:
    """The sums and the sums of absolute values, in float64."""
    arrays = [sum(of_rank(rank, dtype), []) for rank in range(comm.world_size)]
    columns = [np.array(column, np.float64) for column in zip(*arrays, strict=True)]
    return [c.sum(0) for c in columns], [np.abs(c).sum(0) for c in columns]


def same_everywhere(arrays: list) -> bool:
    content = b"".join(array.tobytes() for array in arrays)
    return len(set(comm.world.gather_objects(content))) == 1


# --- exact, in any number of buckets --------------------------------------------------------------

for dtype, eps in (("float64", 2.0**-53), ("float32", 2.0**-24)):
    sums, sizes = exact(dtype)
    for limit in (0, LIMIT, 1):
        gradients, agreed, world_sum = summing(dtype, limit)()
        errors = [
            (np.abs(f - s) / z).max()
            for f, s, z in zip([*gradients, *agreed], sums, sizes, strict=True)
        ]
        shapes = [a.shape for a in [*gradients, *agreed]] == [*SHAPES, *AGREED]
        found[f"{dtype} {limit}"] = {
            "error": max(errors) / eps / comm.world_size,
            "shapes": shapes,
            "same": same_everywhere([*gradients, *agreed]),
            "buckets": len(world_sum.buckets),
        }

# --- bit for bit, whenever the gradients come -----------------------------------------------------

for wire in (None, "bf16"):
    run, seen = summing("float32", LIMIT, wire), set()
    for repeat in range(REPEATS):
        numbers = np.random.default_rng([comm.rank, repeat])
        pauses = numbers.choice([0, 0, 0.001, 0.004], len(SHAPES))
        gradients, agreed, _ = run(pauses)
        seen.add(b"".join(array.tobytes() for array in [*gradients, *agreed]))
    found[f"results {wire}"] = len(seen)

# --- 16 bits on the wire --------------------------------------------------------------------------


def in_order(wire: str, number: int) -> np.ndarray:
    """Rounded, summed in float32 rank after rank, rounded."""
    half = {"bf16": tf.bfloat16, "fp16": tf.float16}[wire].as_numpy_dtype
    total = np.float32(0)
    for rank in range(comm.world_size):
        total = total + of_rank(rank, "float32")[0][number].astype(half).astype(np.float32)
    return np.asarray(total, np.float32).astype(half).astype(np.float32)


sums, sizes = exact("float32")
for wire, unit in (("bf16", 2.0**-8), ("fp16", 2.0**-11)):
    for limit in (0, LIMIT):
        gradients, agreed, _ = summing("float32", limit, wire)()
        ratios = []
        for f, s, z in zip(gradients, sums, sizes, strict=False):
            # Rounded once before and once after the sum; float32 sums and subnormals beside it.
            bound = 1.01 * unit * (z + np.abs(s)) + comm.world_size * 2.0**-25
            ratios.append((np.abs(f - s) / bound).max())
        errors = [
            (np.abs(f - s) / z).max()
            for f, s, z in zip(agreed, sums[len(SHAPES) :], sizes[len(SHAPES) :], strict=True)
        ]
        flat = [np.concatenate([np.ravel(a) for a in arrays]) for arrays in (gradients, sums)]
        flat[1] = flat[1][: len(flat[0])]
        found[f"{wire} {limit}"] = {
            "bound": max(ratios),
            "in_order": all(np.array_equal(g, in_order(wire, i)) for i, g in enumerate(gradients)),
            "agreed": max(errors) * 2.0**24 / comm.world_size,
            "same": same_everywhere([*gradients, *agreed]),
            "relative": float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1])),
            "unit": unit,
        }

# --- sent before the others are there -------------------------------------------------------------


class Watched:
    """The world, with the times at which its sums were there."""

    def __init__(self):
        self.rank, self.world_size, self.seconds = comm.rank, comm.world_size, {}

    def allreduce(self, tensor, name):
        """As the world does it, told."""
        summed = comm.allreduce(tensor, name)

        def note(value):
            self.seconds[name] = time.perf_counter()
            return value

        # Not stateful: TensorFlow keeps such functions in the order in which they were made.
        noted = tf.numpy_function(note, [summed], summed.dtype, stateful=False)
        return tf.ensure_shape(noted, summed.shape)


watched = Watched()
run = summing("float32", LIMIT, world=watched)
run()
pauses = np.zeros(len(SHAPES))
pauses[0] = 0.5  # the last of all
comm.world.barrier()
begun = time.perf_counter()
_, _, world_sum = run(pauses)
times = [watched.seconds[f"step-{i}"] - begun for i in range(len(world_sum.buckets))]
ready, summed = (float(t.numpy()) - begun for t in (world_sum.ready_at, world_sum.summed_at))
found["times"] = {"sums": times, "ready": ready, "summed": summed}

everything = comm.world.gather_objects(found)
if comm.rank == 0:
    print(json.dumps(everything))
