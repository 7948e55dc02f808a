"""Trains with M = 1, and with a plain Horovod loop on the same images; writes both weights. OUT"""

import sys
from pathlib import Path

import numpy as np

from ba_dist import runtime
from ba_dist.comm import start
from ba_dist.rules.layout import Layout

runtime.quiet()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from ba_dist import models  # noqa: E402
from ba_dist.config import Augment  # noqa: E402
from ba_dist.data.augment import Augmentation  # noqa: E402
from ba_dist.data.batch import Batch, Instances  # noqa: E402
from ba_dist.data.sources import ImageInfo  # noqa: E402
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization  # noqa: E402
from ba_dist.models.precision import PRECISIONS  # noqa: E402
from ba_dist.optim.sgd import SGD  # noqa: E402
from ba_dist.step import TrainStep  # noqa: E402
from ba_dist.tasks.classification import Classification  # noqa: E402

STEPS, BATCH, RATE, MOMENTUM, DECAY = 4, 32, 0.1, 0.9, 1e-4

out = Path(sys.argv[1])
comm = start()
runtime.prepare(comm.node.rank, comm.node.size, comm.cores)
comm.start_horovod()
import horovod.tensorflow as hvd  # noqa: E402

numbers = np.random.default_rng(comm.rank)
images = numbers.normal(size=(STEPS, BATCH, 12, 12, 3)).astype(np.float32)
labels = numbers.integers(0, 10, (STEPS, BATCH))


def network():
    keras.utils.set_random_seed(0)
    norm = lambda name: GhostBatchNormalization(32, name=name)  # noqa: E731
    return models.build("resnet8", norm, image_shape=(12, 12, 3), classes=10)


ours = network()
layout = Layout(comm.world_size, 1, BATCH * comm.world_size)
# Of such pixels the step makes what they are.
info = ImageInfo("random", (12, 12, 3), 10, (0.0,) * 3, (1 / 255,) * 3)
step = TrainStep(
    Classification(Augmentation(Augment(), info)),
    ours,
    SGD(ours.trainable_variables),
    layout=layout,
    comm=comm,
    precision=PRECISIONS["fp32"],
)
hyper = {"learning_rate": RATE, "momentum": MOMENTUM, "weight_decay": DECAY}
ids = np.zeros(BATCH, np.int64)
instances = Instances(ids, ids, ids.astype(np.uint64))
for i in range(STEPS):
    inputs = {"images": tf.constant(images[i]), "labels": tf.constant(labels[i])}
    step(Batch(i, 0, inputs, instances, ids[:0]), hyper)

plain = network()
velocity = [tf.Variable(tf.zeros_like(v.value)) for v in plain.trainable_variables]


@tf.function
def plain_gradients(x, y):
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, plain(x, training=True))
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, [v.value for v in plain.trainable_variables])
    names = [v.path for v in plain.trainable_variables]
    return [
        hvd.allreduce(gradient, op=hvd.Average, name=name)
        for gradient, name in zip(gradients, names, strict=True)
    ]


def plain_update(gradients):
    """Outside a tf.function, so that nothing rearranges the sums."""
    for variable, slot, gradient in zip(
        plain.trainable_variables, velocity, gradients, strict=True
    ):
        if variable.path.endswith("kernel"):
            gradient += DECAY * variable.value
        slot.assign(MOMENTUM * slot + gradient)
        variable.value.assign_sub(RATE * slot)


for i in range(STEPS):
    plain_update(plain_gradients(tf.constant(images[i]), tf.constant(labels[i])))
if comm.rank == 0:
    for name, model in (("ours", ours), ("plain", plain)):
        np.savez(out / f"{name}.npz", **{v.path: v.numpy() for v in model.trainable_variables})
