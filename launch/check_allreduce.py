"""Checks Horovod's sums on the ranks' devices against a closed form, bit for bit, and times them.

    launch/mpirun.sh -n 4 -- python launch/check_allreduce.py [CPU|GPU]

Element i of rank r is (i + r) mod 5: small whole numbers, whose sum over up to 512 ranks is exact
in fp16 too, and differs when a rank is missing, counted twice or out of its place.
"""

import statistics
import sys
import time

import numpy as np

from ba_dist import comm, runtime
from ba_dist.errors import UserError

SIZES = {"CPU": (1, 1001, 2**18), "GPU": (1, 1001, 2**24)}
TYPES = ("float32", "float16", "float64")
REPEATS = 10


def expected(size, world_size):
    """[size] the sum over r < world_size of (i + r) mod 5, in float64."""
    cycles, rest = divmod(world_size, 5)
    # Five ranks in a row have 0 to 4 in some order at every element.
    return 10.0 * cycles + sum(((np.arange(size) + r) % 5 for r in range(rest)), np.zeros(size))


def check(world, tf, device, kind, size):
    """Raises UserError unless the sum is right; returns the median time of more of them."""
    with tf.device(f"/{device}:0"):
        mine = tf.constant((np.arange(size) + world.rank) % 5, kind)
        reduced = world.allreduce(mine, f"check_{kind}_{size}")
        found = reduced.numpy().astype(np.float64)
        wrong = np.flatnonzero(found != expected(size, world.world_size))

        def verdict():
            if device not in reduced.device:
                raise UserError(
                    f"{kind} x {size}: the sum is on {reduced.device}, not on a {device}"
                )
            if wrong.size:
                place = int(wrong[0])
                raise UserError(
                    f"{kind} x {size}: {wrong.size} sums are wrong, the first at {place}:"
                    f" {found[place]} in place of {expected(size, world.world_size)[place]}"
                )

        world.together(verdict)
        seconds = []
        for _ in range(REPEATS):
            world.world.barrier()
            begun = time.perf_counter()
            world.allreduce(mine, f"time_{kind}_{size}").numpy()
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def main():
    device = sys.argv[1] if len(sys.argv) > 1 else "GPU"
    if device not in SIZES:
        sys.exit(f"check_allreduce.py: {device} is neither CPU nor GPU")
    world = comm.start()
    tf = world.together(lambda: runtime.prepare(world.node.rank, world.node.size, world.cores))

    def ready():
        if not tf.config.list_logical_devices(device):
            raise UserError(f"TensorFlow sees no {device}")
        if device == "GPU" and not comm.horovod_build()["NCCL"]:
            raise UserError("Horovod was built without NCCL: GPU=1 make setup")

    world.together(ready)
    world.start_horovod()
    for kind in TYPES:
        for size in SIZES[device]:
            seconds = check(world, tf, device, kind, size)
            if world.rank == 0:
                gigabytes = size * np.dtype(kind).itemsize / seconds / 1e9
                print(f"ok  {kind:8} x {size:9}  {seconds * 1e3:8.3f} ms  {gigabytes:7.3f} GB/s")
    if world.rank == 0:
        print(f"all sums over {world.world_size} ranks are right, on {device}s")


if __name__ == "__main__":
    main()
