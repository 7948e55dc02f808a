"""Ghost BatchNorm against its formula in float64: values, statistics, gradients, saving."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist import runtime
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
from ba_dist.models.layers.microbatch import microbatch

EPSILON = 1e-5


def made(shape, **options):
    """A layer with weights that are not the trivial ones."""
    layer = GhostBatchNormalization(**options)
    layer.build((None, *shape))
    numbers = np.random.default_rng(1)
    layer.gamma.assign(numbers.normal(1, 0.2, shape[-1]))
    layer.beta.assign(numbers.normal(0, 0.2, shape[-1]))
    return layer


def images(count, shape=(5, 4, 3), seed=0):
    return np.random.default_rng(seed).normal(2, 3, (count, *shape)).astype(np.float32)


def reference(x, gamma, beta, ghost):
    """Normalised values, means and unbiased variances of the ghost batches, in float64."""
    outputs, means, variances = [], [], []
    axes = tuple(range(x.ndim - 1))
    for start in range(0, len(x), ghost):
        part = x[start : start + ghost].astype(np.float64)
        mean, variance = part.mean(axes), part.var(axes)
        outputs.append(gamma * (part - mean) / np.sqrt(variance + EPSILON) + beta)
        means.append(mean)
        variances.append(part.var(axes, ddof=1))
    return np.concatenate(outputs), np.mean(means, 0), np.mean(variances, 0)


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("count", [2, 7, 8, 16, 40])
@pytest.mark.parametrize("shape", [(5, 4, 3), (6,)])
def test_training_normalises_every_ghost_batch_by_itself(count, shape, repeatable):
    layer = made(shape, ghost_batch_size=8, momentum=0.9, repeatable=repeatable)
    x = images(count, shape)
    found = layer(x, training=True).numpy()
    outputs, mean, variance = reference(x, layer.gamma.numpy(), layer.beta.numpy(), 8)
    np.testing.assert_allclose(found, outputs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-5)


def test_inference_uses_the_moving_statistics_and_moves_nothing():
    layer, x = made((5, 4, 3)), images(10)
    layer.moving_mean.assign([1, 2, 3])
    layer.moving_variance.assign([4, 5, 6])
    found = layer(x, training=False).numpy()
    expected = (x - [1, 2, 3]) / np.sqrt(np.array([4, 5, 6]) + EPSILON)
    expected = expected * layer.gamma.numpy() + layer.beta.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert layer.moving_mean.numpy().tolist() == [1, 2, 3]


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_gradients_equal_those_of_the_formula_in_float64(known, repeatable):
    layer, x = made((5, 4, 3), ghost_batch_size=8, repeatable=repeatable), images(24)
    upstream = np.random.default_rng(3).normal(size=x.shape)

    def formula(x, gamma, beta):
        ghosts = tf.reshape(x, (3, 8, 5, 4, 3))
        mean, variance = tf.nn.moments(ghosts, [1, 2, 3], keepdims=True)
        normal = (ghosts - mean) / tf.sqrt(variance + EPSILON)
        return tf.reshape(normal * gamma + beta, x.shape)

    parts = [tf.constant(v, tf.float64) for v in (x, layer.gamma.numpy(), layer.beta.numpy())]
    with tf.GradientTape() as tape:
        tape.watch(parts)
        y = formula(*parts)
    expected = tape.gradient(y, parts, tf.constant(upstream))

    @tf.function(input_signature=[tf.TensorSpec((24 if known else None, 5, 4, 3))])
    def found(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        upstream_32 = tf.constant(upstream, tf.float32)
        return tape.gradient(y, [x, layer.gamma.value, layer.beta.value], upstream_32)

    for value, exact in zip(found(tf.constant(x)), expected, strict=True):
        np.testing.assert_allclose(value, exact, rtol=2e-4, atol=2e-4)


def test_float64_is_exact():
    keras.config.set_dtype_policy("float64")
    try:
        layer, x = made((5, 4, 3), ghost_batch_size=8), images(16).astype(np.float64)
    finally:
        keras.config.set_dtype_policy("float32")
    outputs, mean, _ = reference(x, layer.gamma.numpy(), layer.beta.numpy(), 8)
    np.testing.assert_allclose(layer(x, training=True), outputs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_microbatches_move_the_statistics_once_a_step(dtype):
    keras.config.set_dtype_policy(dtype)
    try:
        whole, parts = made((5, 4, 3), ghost_batch_size=8), made((5, 4, 3), ghost_batch_size=8)
    finally:
        keras.config.set_dtype_policy("float32")
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    for seed in range(3):
        x = images(32, seed=seed).astype(dtype)
        whole(x, training=True)
        for i, part in enumerate(np.split(x, 4)):
            with microbatch(tf.constant(i == 0), 4):
                parts(part, training=True)
    np.testing.assert_allclose(parts.moving_mean, whole.moving_mean, rtol=tolerance)
    np.testing.assert_allclose(parts.moving_variance, whole.moving_variance, rtol=tolerance)


def test_a_batch_that_is_not_made_of_whole_ghost_batches_is_refused():
    with pytest.raises(ValueError, match="batch of 12 does not divide into ghost batches of 8"):
        made((5, 4, 3), ghost_batch_size=8)(images(12), training=True)


def test_a_saved_model_is_the_same_when_loaded(tmp_path):
    model = keras.Sequential([keras.Input((5, 4, 3)), GhostBatchNormalization(8, 0.8, 1e-3)])
    model(images(16), training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    layer = loaded.layers[-1]
    assert (layer.ghost_batch_size, layer.momentum, layer.epsilon) == (8, 0.8, 1e-3)
    x = images(4)
    assert model(x).numpy().tobytes() == loaded(x).numpy().tobytes()


def test_keras_fit_with_an_unknown_batch_size_moves_the_statistics():
    model = keras.Sequential(
        [keras.Input((5, 4, 3)), GhostBatchNormalization(8), keras.layers.Flatten()]
    )
    model.compile("sgd", "mse")
    model.fit(images(32), np.zeros((32, 60)), batch_size=16, verbose=0)
    assert np.abs(model.layers[0].moving_mean.numpy()).min() > 0


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_statistics_in_float32(policy):
    layer = GhostBatchNormalization(8, dtype=policy)
    x = images(16)
    y = layer(tf.cast(x, layer.compute_dtype), training=True)
    assert y.dtype == layer.compute_dtype
    assert layer.moving_mean.dtype == "float32"
    outputs, mean, _ = reference(x, 1.0, 0.0, 8)
    np.testing.assert_allclose(tf.cast(y, tf.float32), outputs, atol=0.05)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=2e-2)


# With so many threads: the digest of the outputs and moving statistics of one layer and of the
# other, each normalising the same images three times.
DIGESTS = """
import os, sys
os.environ["TF_NUM_INTRAOP_THREADS"] = sys.argv[1]
from ba_dist import runtime
tf = runtime.prepare(0, 1, 1)
import hashlib
import numpy as np
from ba_dist import runtime
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
x = np.random.default_rng(0).normal(2, 3, (32, 64, 64, 32)).astype(np.float32)
for repeatable in (True, False):
    digests = set()
    for _ in range(3):
        layer = GhostBatchNormalization(repeatable=repeatable)
        y = layer(x, training=True)
        parts = [y.numpy(), layer.moving_mean.numpy(), layer.moving_variance.numpy()]
        digests.add(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
    print(*digests)
"""


@pytest.mark.skipif(runtime.cores() < 2, reason="one core: there are no two numbers of threads")
def test_repeatable_statistics_have_the_same_bits_on_one_core_and_on_two():
    one, two = (
        subprocess.run(
            [sys.executable, "-c", DIGESTS, threads], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for threads in "12"
    )
    assert one[0] == two[0] and len(one[0]) == 64
    # The fused kernel: one digest for a number of threads, another one for another number.
    assert one[1] != two[1] and len(one[1]) == len(two[1]) == 64
