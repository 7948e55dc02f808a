"""A backward pass that computes activations again: the same numbers, less memory."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist.errors import ConfigError
from ba_dist.models.layers.dropout import InstanceDropout, InstanceDropPath
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
from ba_dist.models.layers.microbatch import microbatch
from ba_dist.models.precision import set_precision
from ba_dist.models.recompute import Recomputed

INSTANCES = 6


def two_paths(depth=9):
    """Layers with everything that recomputation may get wrong: noise, moving statistics, tensors
    that pass by several layers, two answers."""
    keras.utils.set_random_seed(depth)
    x = keras.Input((6, 6, 3))
    before = y = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    heads = []
    for i in range(depth):
        z = GhostBatchNormalization(3)(y)
        z = InstanceDropout(0.3, f"dropout-{i}")(keras.layers.ReLU()(z))
        z = InstanceDropPath(f"edge-{i}")(keras.layers.Conv2D(4, 3, padding="same")(z))
        before, y = y, keras.layers.Add()([before, z])
        if i in (depth // 2, depth - 1):
            heads.append(keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(y)))
    return keras.Model(x, heads[::-1])


def pass_through(model, forward, count=1):
    """(answers, gradients, moving statistics) of `count` microbatches of a step."""
    numbers = np.random.default_rng(1)
    images = tf.constant(numbers.normal(size=(count, INSTANCES, 6, 6, 3)))
    keys = tf.constant(numbers.integers(0, 2**63, (count, INSTANCES)).astype(np.uint64))
    weights = [v.value for v in model.trainable_variables]

    @tf.function(autograph=False)
    def run(images, keys, first):
        with (
            tf.GradientTape() as tape,
            microbatch(first, count, keys=keys, drop_path=tf.constant(0.4)),
        ):
            answers = forward(images, training=True)
            total = tf.add_n([tf.reduce_sum(answer**2) for answer in tf.nest.flatten(answers)])
        return answers, tape.gradient(total, weights)

    before = [v.numpy() for v in model.non_trainable_variables]
    results = [run(images[i], keys[i], tf.constant(i == 0)) for i in range(count)]
    moved = [v.numpy() for v in model.non_trainable_variables]
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        variable.assign(value)
    return [*tf.nest.flatten(results), *moved]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("depth", [1, 2, 9])
def test_every_number_is_the_same(depth, count):
    set_precision("fp64")
    try:
        model = two_paths(depth)
        plain = pass_through(model, model, count)
        again = pass_through(model, Recomputed(model), count)
    finally:
        set_precision("fp32")
    assert len(plain) == len(again)
    for one, other in zip(plain, again, strict=True):
        # What several parts add to a gradient is added in another order.
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12 * np.abs(one).max())


def test_moving_statistics_have_moved_at_all():
    model = two_paths()
    *_, moved = pass_through(model, Recomputed(model))
    assert np.abs(moved - 1).max() > 0.01


def test_it_is_cut_into_some_parts_and_none_is_lost():
    model = two_paths(30)
    parts = Recomputed(model)._parts
    layers = [layer.name for part in parts for layer in part.network.layers]
    assert 4 < len(parts) < 40
    assert {layer.name for layer in model.layers} <= set(layers)


def test_a_network_that_is_a_class_is_refused():
    class Own(keras.Model):
        pass

    with pytest.raises(ConfigError, match="--recompute needs a network made as"):
        Recomputed(Own())


PEAK = """
import sys
from pathlib import Path
from ba_dist.runtime import quiet
quiet()
import keras
import tensorflow as tf
from ba_dist.models.recompute import Recomputed

x = y = keras.Input((500,))
for _ in range(64):
    y = keras.layers.Dense(500, "tanh")(y)
model = keras.Model(x, y)
forward = Recomputed(model) if sys.argv[1] == "again" else model

@tf.function
def gradient(x):
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(forward(x, training=True))
    return tape.gradient(total, [v.value for v in model.trainable_variables])

gradient(tf.zeros((10, 500)))
gradient(tf.zeros((4000, 500)))
status = Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""


def peak(how):
    """KiB of the largest memory of a process that keeps 64 activations of 8 MB, or does not."""
    done = subprocess.run([sys.executable, "-c", PEAK, how], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.smoke
def test_less_memory_is_used():
    saved = peak("plain") - peak("again")
    assert saved > 250_000  # of 512 MB of activations, 2·√64 = 16 of 64 are to stay
