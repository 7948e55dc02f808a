"""Keras' own `fit` on several ranks, with two augmented copies of every sample.

launch/mpirun.sh -n 2 -- python docs/examples/fit.py
"""

import ba_dist

comm = ba_dist.start()  # before Keras: TensorFlow is silent then

import keras
from sklearn.datasets import load_digits

keras.utils.set_random_seed(0)
digits = load_digits()
images, labels = (digits.images * 15.9).astype("uint8")[..., None], digits.target
train, test = (images[:1500], labels[:1500]), (images[1500:], labels[1500:])
augment = ba_dist.Augment(pad_crop=1)
ba = ba_dist.BatchAugmentation(*train, comm=comm, batch_size=64, multiplicity=2, augment=augment)

model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(32, 3, use_bias=False),
        ba_dist.GhostBatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
)
model.compile(
    ba_dist.distributed(keras.optimizers.SGD(0.1, momentum=0.9), comm),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
warm_up = ba_dist.WarmUp(0.1, epochs=2, scale=comm.world_size)
model.fit(
    ba.train(),
    epochs=10,
    steps_per_epoch=ba.steps_per_epoch,
    validation_data=ba.evaluation(*test),
    callbacks=ba_dist.callbacks(comm, [warm_up]),
    verbose=2,
)
