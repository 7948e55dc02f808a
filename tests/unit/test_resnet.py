"""The residual networks against the sizes that are published, and their first steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist import models
from ba_dist.models import resnet
from ba_dist.models.layers.blocks import conv
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization

from .plain_network import Plain, pool, relu


@pytest.mark.parametrize(
    ("name", "shape", "classes", "digits"),
    [
        # Table 6 of He et al. gives two digits of a million; the shortcuts have no parameters.
        *((f"resnet{depth}", (32, 32, 3), 10, 2) for depth in (20, 32, 44, 56, 110)),
        *((f"resnet{depth}", (224, 224, 3), 1000, 8) for depth in (18, 34, 50, 101, 152)),
    ],
)
def test_the_number_of_parameters_is_the_published_one(name, shape, classes, digits):
    model = models.build(name, GhostBatchNormalization, image_shape=shape, classes=classes)
    found = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    published = models.network(name).parameters
    assert float(f"{found:.{digits - 1}e}") == published


def test_every_published_number_is_looked_at():
    entries = models.NETWORKS.items()
    published = {name for name, e in entries if e.parameters and name.startswith("resnet")}
    # 1202 layers take minutes to build; the rule is that of the others.
    assert published == {f"resnet{d}" for d in (20, 32, 44, 56, 110, 1202, 18, 34, 50, 101, 152)}


def test_the_first_steps_at_the_published_rate_go_down():
    """Without warm-up, as the ImageNet recipe begins; with γ = 1 everywhere the loss went to 30."""
    keras.utils.set_random_seed(0)
    model = models.build("resnet50", GhostBatchNormalization, image_shape=(32, 32, 3), classes=10)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(32, 1, 1, 3)) + 0.3 * rng.normal(size=(32, 32, 32, 3))
    labels = np.arange(32) % 10
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    losses = []
    for _ in range(3):
        with tf.GradientTape() as tape:
            logits = model(images.astype(np.float32), training=True)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(loss)
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        losses.append(float(loss))
    assert losses[0] == pytest.approx(np.log(10), abs=0.2)
    assert max(losses) == losses[0]


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_strides_are_centred_on_the_pixels_that_shortcuts_take(size, side):
    """A kernel that is 1 at its centre gives back the pixels it is centred on: 0, 2, 4, …"""
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    convolution = conv(3, size, 2, "conv")
    convolved = keras.Model(inputs := keras.Input((side, side, 3)), convolution(inputs))
    kernel = np.zeros((size, size, 3, 3), np.float32)
    kernel[size // 2, size // 2] = np.eye(3)
    convolved.set_weights([kernel])
    shortcut = resnet._Shortcut(3, 2)
    np.testing.assert_array_equal(convolved(images), images[:, ::2, ::2])
    np.testing.assert_array_equal(shortcut(images), images[:, ::2, ::2])


@pytest.mark.parametrize("side", [7, 8])
def test_a_shortcut_and_its_gradient_are_those_of_every_second_pixel(side):
    images = tf.constant(np.random.default_rng(0).normal(size=(2, side, side, 3)), tf.float32)
    shortcut = resnet._Shortcut(5, 2)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        found, expected = shortcut(images), images[:, ::2, ::2]
        cubes = [tf.reduce_sum(pixels**3) for pixels in (found, expected)]
    np.testing.assert_array_equal(found[..., 1:4], expected)
    assert not np.any(found[..., :1]) and not np.any(found[..., 4:])
    np.testing.assert_array_equal(*(tape.gradient(cube, images) for cube in cubes))


def test_the_pool_behind_the_stem_is_centred_alike():
    model = models.build("resnet50", GhostBatchNormalization, image_shape=(64, 64, 3), classes=10)
    (pool,) = (layer for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D))
    padded = keras.Model(pool.input, pool.output)
    # What comes in is padded already; torch pools with padding 1, by the maximum of 3x3.
    x = np.abs(np.random.default_rng(0).normal(size=(1, 32, 32, 64))).astype(np.float32)
    wide = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (1, 2))[:, ::2, ::2]
    np.testing.assert_array_equal(padded(wide), windows.max((-2, -1)))
    assert pool.output.shape[1:3] == (16, 16)


class Reference(Plain):
    """ResNet-18 and 34 by their table."""

    def block(self, x, name, stride):
        y = self.norm_relu(self.conv(x, f"{name}_conv0", stride), f"{name}_norm0")
        y = self.norm(self.conv(y, f"{name}_conv1"), f"{name}_norm1")
        if f"{name}_shortcut/kernel" in self.values:
            x = self.norm(self.conv(x, f"{name}_shortcut", stride), f"{name}_shortcut_norm")
        return relu(x + y)

    def __call__(self, x, stages):
        x = pool(self.norm_relu(self.conv(x, "stem", 2), "stem_norm"), 3, 2, 1, by=np.nanmax)
        for stage, blocks in enumerate(stages):
            for block in range(blocks):
                x = self.block(x, f"stage{stage}_block{block}", 1 + (stage > 0 and block == 0))
        return self.linear(x.mean((1, 2)), "logits")


@pytest.mark.parametrize(
    ("name", "stages"), [("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3))]
)
def test_the_networks_of_basic_blocks_compute_what_their_table_says(name, stages):
    model = models.build(name, GhostBatchNormalization, image_shape=(64, 64, 3), classes=5)
    noise = np.random.default_rng(0)
    for variable in model.variables:  # also γ = 0 and the moving statistics
        spread = 0.5 + noise.random(variable.shape)
        kernel = "kernel" in variable.path
        variable.assign(np.asarray(variable.value) if kernel else spread)
    images = noise.normal(size=(2, 64, 64, 3))
    expected = Reference(model)(images, stages)
    found = np.asarray(model(images.astype(np.float32)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
