"""`model.fit` on these ranks, as scripts call it. OUT

Each case is a function below; `OUT/NAME.npz` of rank 0 holds the weights that it came to. What
ranks saw (histories, numbers of steps, messages) is in `OUT/rank-R.json`.
"""

import json
import sys
import zipfile
from pathlib import Path

import ba_dist

comm = ba_dist.start()

# After `start()`, which silences TensorFlow.
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from ba_dist.errors import UserError  # noqa: E402

OUT, W, R = Path(sys.argv[1]), comm.world_size, comm.rank
BATCH, STEPS, FEATURES = 32, 3, 5
rng = np.random.default_rng(0)
x = rng.normal(size=(STEPS * BATCH, FEATURES))
y = (x @ rng.normal(size=FEATURES) > 0).astype(float)[:, None]
# 50 do not divide: ranks hold shards of different lengths.
val_x, val_y = rng.normal(size=(50, FEATURES)), rng.integers(0, 2, (50, 1)).astype(float)
seen: dict[str, object] = {}


def network(*layers, normalised=True, dtype=None):
    """Weights differ between ranks, where rank 0's do not on any number of ranks."""
    keras.utils.set_random_seed(1 + R)
    ghosts = [ba_dist.GhostBatchNormalization(8, momentum=0.5)] if normalised else []
    layers = [*layers, keras.layers.Dense(7, dtype=dtype), *ghosts, keras.layers.ReLU(dtype=dtype)]
    return keras.Sequential([*layers, keras.layers.Dense(1, dtype=dtype)])


def compiled(model, optimizer, metrics=()):
    model.build((None, FEATURES))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(ba_dist.distributed(optimizer, comm), loss, metrics=list(metrics))
    return model


def batches(images=x):
    """This rank's part of each batch: those of all ranks are the batches of one process."""
    part = BATCH // W
    mine = [a.reshape(STEPS, W, part, -1)[:, R].reshape(STEPS * part, -1) for a in (images, y)]
    return tf.data.Dataset.from_tensor_slices(tuple(mine)).batch(part)


def fit(name, model, data=None, **how):
    how = {"epochs": 2, "callbacks": ba_dist.callbacks(comm), "verbose": 0, **how}
    history = model.fit(data or batches(), **how)
    weights = [np.asarray(v, np.float64) for v in model.weights + model.optimizer.variables]
    same = comm.world.gather_objects([w.tobytes() for w in weights])
    seen[name] = {"alike": all(other == same[0] for other in same), **history.history}
    if R == 0:
        np.savez(OUT / f"{name}.npz", *weights)
    return model


class Stop(keras.callbacks.Callback):
    """Wishes to stop at a batch of an epoch, on one rank."""

    def __init__(self, rank, epoch, batch):
        super().__init__()
        self.wanted, self.rank, self.epoch = (epoch, batch), rank, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.wanted and self.rank == R:
            self.model.stop_training = True


class Rates(keras.callbacks.Callback):
    """Notes the learning rate of every step."""

    def on_train_begin(self, logs=None):
        seen["rates"] = []

    def on_train_batch_end(self, batch, logs=None):
        seen["rates"].append(float(self.model.optimizer.learning_rate))


def optimizers():
    found = ["binary_accuracy", keras.metrics.AUC(num_thresholds=20, from_logits=True, name="auc")]
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    model = compiled(network(), keras.optimizers.SGD(schedule, 0.9, nesterov=True), found)
    shard = (val_x[R::W], val_y[R::W])
    fit("sgd", model, validation_data=shard, validation_batch_size=50)
    model.evaluate(*shard, verbose=0, callbacks=ba_dist.callbacks(comm))
    seen["evaluated"] = model.get_metrics_result()
    adam = keras.optimizers.Adam(0.01, clipnorm=0.05, gradient_accumulation_steps=2)
    fit("clipnorm", compiled(network(), adam))
    if W != 4:
        adam = keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.05)
        fit("global_clipnorm", compiled(network(), adam))


def rows_of_an_embedding():
    numbers = np.abs(x * 3).astype(int).clip(0, 9).astype(float)
    layers = [keras.layers.Embedding(10, 3), keras.layers.Flatten()]
    model = compiled(network(*layers, normalised=False), keras.optimizers.SGD(0.1))
    fit("embedding", model, batches(numbers))


def frozen_layers_keep_every_bit():
    frozen = keras.layers.Dense(FEATURES)
    still = keras.layers.Normalization(mean=np.full(FEATURES, 0.1), variance=np.full(FEATURES, 3.3))
    model = network(still, frozen)
    frozen.trainable = False
    compiled(model, keras.optimizers.SGD(0.1))
    if R == 0:
        before = frozen.kernel.numpy()
    fit("frozen", model)
    if R == 0:
        seen["frozen"]["kept"] = bool((frozen.kernel.numpy() == before).all())


def several_steps_a_call():
    model = network()
    compiled(model, keras.optimizers.SGD(0.1))
    model.compile(model.optimizer, "mse", steps_per_execution=3)
    fit("executed", model)


def stopping(model):
    """On one rank: in an epoch, at its last step, at its end."""
    at_the_end = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", R == W - 1)
    )
    early = keras.callbacks.EarlyStopping("loss", patience=1, min_delta=9, restore_best_weights=1)
    for name, callback in {
        "at a step": Stop(W - 1, 0, 0),
        "at the last step": Stop(W - 1, 0, STEPS - 1),
        "at the end": at_the_end,
        "early": early,
    }.items():
        before = int(model.optimizer.iterations)
        fit(name, model, epochs=4, callbacks=ba_dist.callbacks(comm, [callback]))
        seen[name]["steps"] = int(model.optimizer.iterations) - before


def rates(model):
    own = ba_dist.callbacks(comm, [ba_dist.WarmUp(0.4, epochs=2, scale=4), Rates()])
    fit("warm", model, epochs=3, callbacks=own)
    first = seen["rates"]
    model.optimizer.learning_rate = 0.125  # stays: the warm-up is over
    fit("warm", model, epochs=4, initial_epoch=3, callbacks=own)
    seen["rates"] = first + seen["rates"]


def files():
    """Rank 0 alone writes, and reads what others then start from, with their first epoch."""
    path = OUT / f"rank-{R}.keras"
    model = compiled(network(normalised=False), keras.optimizers.SGD(0.1, momentum=0.9))
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_freq=2)
    backup = keras.callbacks.BackupAndRestore(OUT / f"backup-{R}", delete_checkpoint=False)
    kept = ba_dist.callbacks(comm, on_rank_0=[checkpoint, backup])
    fit("saved", model, epochs=2, callbacks=kept)
    comm.world.barrier()
    seen["written"] = [path.exists() for path in (path, OUT / f"backup-{R}")]
    if R == 0:
        model.save(OUT / "saved.keras")
        archive = zipfile.ZipFile(OUT / "saved.keras")
        seen["names us"] = b"ba_dist" in archive.read("config.json")
    model = compiled(network(normalised=False), keras.optimizers.SGD(0.1, momentum=0.9))
    backup = keras.callbacks.BackupAndRestore(OUT / "backup-0", delete_checkpoint=False)
    fit("resumed", model, epochs=3, callbacks=ba_dist.callbacks(comm, on_rank_0=[backup]))
    fit("whole", compiled(network(normalised=False), keras.optimizers.SGD(0.1, 0.9)), epochs=3)
    if R == 0:
        loaded = keras.models.load_model(OUT / "saved.keras")
    else:  # begins with anything
        loaded = network(normalised=False)
        loaded.build((None, FEATURES))
        loaded.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    own = loaded.optimizer
    loaded.compile(ba_dist.distributed(own, comm), keras.losses.BinaryCrossentropy(True))
    fit("loaded", loaded, epochs=3, initial_epoch=2)


def half_precision():
    """One rank's gradient overflows: all leave the step out."""
    model = network(normalised=False, dtype="mixed_float16")
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential(model.layers)  # a model of this precision: compile adds the scale
    keras.config.set_dtype_policy("float64")
    compiled(model, keras.optimizers.SGD(0.1))
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    spoilt = x.copy()
    spoilt[: BATCH // W] *= 1e30 if R == 0 else 1  # in the first batch of rank 0
    fit("half", model, batches(spoilt), epochs=1)
    seen["half"]["steps"] = int(model.optimizer.iterations)
    seen["half"]["scale"] = float(model.optimizer.dynamic_scale)


def mistakes(model):
    """Found on all ranks before any step, or at an epoch's end; nobody hangs."""
    scheduled = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9))
    warm_up = ba_dist.callbacks(comm, [ba_dist.WarmUp(0.1, 1, 2)])
    bare = keras.Sequential([keras.layers.Dense(1)])
    bare.compile(ba_dist.distributed("sgd", comm), "mse")
    plain = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(1)])
    plain.compile("sgd", "mse")
    own_rate = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: setattr(model.optimizer, "learning_rate", 0.1 * (1 + R))
    )
    for name, network_, how in (
        ("unknown", model, {"data": batches().filter(lambda *_: True)}),
        ("unequal", model, {"data": batches().take(STEPS - R)}),
        ("epochs", model, {"epochs": 1 + R}),
        ("first", model, {"epochs": 4, "initial_epoch": R}),
        ("validated", model, {"validation_data": (val_x, val_y) if R == 0 else None}),
        ("own rate", model, {"callbacks": ba_dist.callbacks(comm, [own_rate])}),
        ("schedule", compiled(network(), scheduled), {"callbacks": warm_up}),
        ("unbuilt", bare, {}),
        ("plain", plain, {}),
    ):
        try:
            fit(name, network_, **how)
        except UserError as error:
            assert error.agreed
            seen[name] = str(error)
    try:
        ba_dist.distributed(3, comm)
    except UserError as error:
        seen["no optimizer"] = str(error)


keras.config.set_dtype_policy("float64")
keras.config.set_floatx("float64")
optimizers()
if W != 4:
    rows_of_an_embedding()
    frozen_layers_keep_every_bit()
if W == 2:
    trained = compiled(network(), keras.optimizers.SGD(0.1))
    stopping(trained)
    rates(trained)
    mistakes(trained)
    several_steps_a_call()
    files()
    half_precision()
(OUT / f"rank-{R}.json").write_text(json.dumps(seen))
