"""The last rank fails inside `fit` as KIND says, while the others wait in the message of a step.

raises: a callback of it. dry: its data has fewer steps than it says.
"""

import sys

import ba_dist

comm = ba_dist.start()

# After `start()`, which silences TensorFlow.
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

last = comm.rank == comm.world_size - 1


class Spoilt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1 and last and sys.argv[1] == "raises":
            raise ValueError(f"spoilt by rank {comm.rank}")


steps = 2 if last and sys.argv[1] == "dry" else 6
batches = tf.data.Dataset.from_tensors((tf.ones((4, 3)), tf.ones((4, 1)))).repeat(steps)
batches = batches.apply(tf.data.experimental.assert_cardinality(steps))
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile(ba_dist.distributed("sgd", comm), "mse")
model.fit(
    batches, steps_per_epoch=6, verbose=0, callbacks=ba_dist.callbacks(comm, everywhere=[Spoilt()])
)
print("nobody should come here")
