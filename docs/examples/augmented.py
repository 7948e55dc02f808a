"""The script of plain.py with batch augmentation: two augmented copies of every sample.

launch/mpirun.sh -n 2 -- python docs/examples/augmented.py
"""

import horovod.tensorflow as hvd
import keras
import tensorflow as tf
from sklearn.datasets import load_digits

import ba_dist

comm = ba_dist.start()  # before Horovod: the reader has a thread of its own
hvd.init()
keras.utils.set_random_seed(0)

digits = load_digits()
images, labels = (digits.images * 15.9).astype("uint8")[..., None], digits.target
train, test = (images[:500], labels[:500]), (images[500:], labels[500:])
augment = ba_dist.Augment(pad_crop=1, cutout=2)
ba = ba_dist.BatchAugmentation(*train, comm=comm, batch_size=64, multiplicity=2, augment=augment)
batches, held_out = ba.train(steps=300), ba.evaluation(*test)

norm = ba_dist.GhostBatchNormalization
model = keras.Sequential(
    [
        keras.layers.Conv2D(32, 3, use_bias=False),
        norm(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.Conv2D(32, 3, use_bias=False),
        norm(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
)
model.build((None, 8, 8, 1))
optimizer = keras.optimizers.SGD(0.05, momentum=0.9)


@tf.function
def train_step(x, y):
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True))
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    optimizer.apply(hvd.grouped_allreduce(gradients), model.trainable_variables)
    return loss


for x, y in batches:
    loss = train_step(x, y)
for moving in model.non_trainable_variables:  # of BatchNorm, each rank has its own
    moving.assign(hvd.allreduce(moving.value))
right = [tf.cast(tf.argmax(model(x), 1) == y, tf.float32) for x, y in held_out]
sums = [tf.reduce_sum(tf.concat(right, 0)), sum(len(r) for r in right)]
hits, samples = hvd.allreduce(tf.stack(sums), op=hvd.Sum)
if hvd.rank() == 0:
    print(f"accuracy on {samples:.0f} other images {hits / samples:.2%}")
