"""An ordinary Horovod and Keras training script: every rank trains on samples of its own.

launch/mpirun.sh -n 2 -- python docs/examples/plain.py
"""

import horovod.tensorflow as hvd
import keras
import tensorflow as tf
from sklearn.datasets import load_digits

hvd.init()
keras.utils.set_random_seed(0)

digits = load_digits()
images, labels = (digits.images * 15.9).astype("uint8")[..., None], digits.target
shard = (images[hvd.rank() :: hvd.size()] / 255.0, labels[hvd.rank() :: hvd.size()])
batches = tf.data.Dataset.from_tensor_slices(shard).repeat().shuffle(1000).batch(32).take(200)

model = keras.Sequential(
    [
        keras.layers.Conv2D(16, 3, use_bias=False),
        keras.layers.BatchNormalization(),
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
