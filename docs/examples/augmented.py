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
augment = ba_dist.Augment(pad_crop=1, cutout=2)
batches = ba_dist.input_pipeline(images, labels, comm, 64, 2, steps=200, augment=augment)

model = keras.Sequential(
    [
        keras.layers.Conv2D(16, 3, use_bias=False),
        ba_dist.GhostBatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10),
    ]
)
model.build((None, 8, 8, 1))
optimizer = keras.optimizers.SGD(0.1, momentum=0.9)


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
if hvd.rank() == 0:
    print(f"loss {float(loss):.3f}")
