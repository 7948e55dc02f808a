"""Scripts of people's own, in small. MODE

same     prints a digest of all instances of some steps, and of the evaluation, over all ranks
wrong    gives wrong arguments, on one rank or on all, and counts the messages of each rank
leave    rank 0 leaves its batches after step 3, the others go on
uncaught gives an argument that cannot work
held     the same, but rank 0 holds on to its iterator and asks for nothing
"""

import hashlib
import sys
import time

import numpy as np

from ba_dist import runtime
from ba_dist.comm import start

comm = start()
runtime.prepare(comm.node.rank, comm.node.size, comm.cores)  # faster than by itself

# After TensorFlow is there: what ba_dist makes public loads it.
import ba_dist  # noqa: E402
from ba_dist.errors import ConfigError, DataError  # noqa: E402

pixels = np.random.default_rng(0).integers(0, 256, (203, 9, 8, 3), np.uint8)
labels = np.arange(203) % 7
AUGMENT = ba_dist.Augment(pad_crop=2, flip=True, cutout=4)


class OneAtATime:
    """Gives the arrays by index."""

    def __len__(self):
        return len(pixels)

    def __getitem__(self, i):
        return pixels[i], labels[i]


def shaken(image, rng):
    """Noise and a roll, as a person's own augmentation."""
    noise = rng.integers(-20, 21, image.shape)
    return np.roll((image + noise).clip(0, 255).astype(np.uint8), rng.integers(0, 4), axis=1)


def pipeline(images=pixels, marks=labels, **changes):
    arguments = {"batch_size": 16, "multiplicity": 4, "augment": AUGMENT, "seed": 5}
    return ba_dist.BatchAugmentation(images, marks, comm=comm, **arguments | changes)


def same():
    arrays = pipeline(own_augment=shaken)
    objects = pipeline(OneAtATime(), None, own_augment=shaken, classes=7, standardise=False)
    data = ba_dist.Data("synthetic", image_size=9, train_samples=203, val_samples=203)
    named = pipeline(data, None, own_augment=shaken)
    for name, ba in (("arrays", arrays), ("objects", objects), ("named", named)):
        whole = hashlib.sha256()
        batches = ba.train(steps=7)  # 12 steps are an epoch
        for images, marks in (batch for _ in range(2) for batch in batches):
            rows = comm.world.gather_objects((ba.layout.rows(comm.rank), images.numpy(), marks))
            order = np.argsort(np.concatenate([row for row, _, _ in rows]))
            whole.update(np.concatenate([part for _, part, _ in rows])[order].tobytes())
            whole.update(np.concatenate([part for _, _, part in rows])[order].tobytes())
        hits = total = 0
        others = () if ba is named else (pixels, labels)
        for images, marks in ba.evaluation(*others, batch_size=30):
            hits += int((np.asarray(marks) == 3).sum())
            total += len(images)
        share = ba.average(hits, total), ba.average({"samples": total}, 1)["samples"]
        if comm.rank == 0:
            print(name, whole.hexdigest(), f"{share[0] * 203:.9f}", share[1] * comm.world_size)


def wrong():
    last = comm.rank == comm.world_size - 1
    part = slice(comm.rank, None, comm.world_size)
    cases = {
        "one rank has floats": lambda: pipeline(pixels / 255 if last else pixels),
        "shards": lambda: pipeline(pixels[part], labels[part]),
        "another seed": lambda: pipeline(seed=comm.rank),
        "other steps": lambda: pipeline().train(3 + comm.rank),
        "negative steps": lambda: pipeline().train(-3),
        "evaluation": lambda: pipeline().evaluation(pixels, labels + 1),
        "few": lambda: pipeline().evaluation(pixels[:1], labels[:1]),
    }
    told = []
    for name, make in cases.items():
        try:
            make()
            found = "nothing"
        except (ConfigError, DataError) as error:
            found = f"{error}"
        told.append(f"rank {comm.rank} {name}: {found}")
    # Not by each rank: Open MPI 4 does not keep the lines of two ranks apart.
    everything = comm.world.gather_objects(told)
    if comm.rank == 0:
        print(*(line for of_rank in everything for line in of_rank), sep="\n")


def leave(held=False):
    multiplicity = int(sys.argv[2])
    ba = pipeline(multiplicity=multiplicity, stall_timeout=2)
    batches = iter(ba.train(50))
    for _ in range(3):
        next(batches)
    if comm.rank == 0:
        if not held:
            del batches
        time.sleep(200)
    for _ in batches:
        if multiplicity == 1:
            comm.world.barrier()  # as an allreduce does: rank 0 will not come
    print("went on as if nothing had been", flush=True)


MODES = {
    "same": same,
    "wrong": wrong,
    "leave": leave,
    "held": lambda: leave(held=True),
    "uncaught": lambda: pipeline(augment=ba_dist.Augment(cutout=-1)),
}
MODES[sys.argv[1]]()
