"""The other networks of the paper's tables: published sizes, and what they compute."""

from functools import partial

import keras
import numpy as np
import pytest

from ba_dist import models
from ba_dist.errors import ConfigError
from ba_dist.models import densenet, vgg, wide_resnet
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
from ba_dist.models.tags import ADAPT, DECAY, carries

from .plain_network import Plain, pool, relu, shake

CIFAR10, CIFAR100, IMAGENET = ((32, 32, 3), 10), ((32, 32, 3), 100), ((224, 224, 3), 1000)
PUBLISHED = {  # the dataset of the number, and its digits
    "wrn28-10": (CIFAR10, 3),
    "vgg16": (CIFAR100, 3),
    "densenet100-12": (CIFAR10, 1),
    "darts": (CIFAR10, 7),
    "alexnet": (IMAGENET, 3),
    "mobilenet": (IMAGENET, 2),
}


@pytest.fixture(params=PUBLISHED, scope="module")
def built(request):
    """Each of them, as large as its number was published for, with digits and its name."""
    (shape, classes), digits = PUBLISHED[request.param]
    keras.utils.set_random_seed(0)
    model = models.build(request.param, GhostBatchNormalization, image_shape=shape, classes=classes)
    return model, digits, request.param


def parameters(model):
    """Without an auxiliary head, which no published number counts."""
    of_network = [v for v in model.trainable_variables if "auxiliary" not in v.path]
    return sum(int(np.prod(v.shape)) for v in of_network)


def test_the_number_of_parameters_is_the_published_one(built):
    model, digits, name = built
    assert float(f"{parameters(model):.{digits - 1}e}") == models.network(name).parameters


def test_every_published_number_is_looked_at():
    """Those of residual networks in `test_resnet`, that of `lstm` in `test_lstm`."""
    entries = models.NETWORKS.items()
    published = {name for name, e in entries if e.parameters and not name.startswith("resnet")}
    assert published == {*PUBLISHED, "lstm"}


def agree(model, expected_of, shape):
    """Float64 outputs of a network and of the plain one, which uses all of its variables."""
    shake(model)
    images = np.random.default_rng(1).normal(size=(2, *shape))
    plain = Plain(model)
    expected = expected_of(plain, images)
    np.testing.assert_allclose(model(images, training=False), expected, rtol=1e-9)
    assert plain.unused() == set()
    differ(expected)


def differ(expected):
    """The two images do not only get the biases of the last layer."""
    assert np.ptp(expected, axis=0).min() > 1e-3 * np.abs(expected).max()


# --- each network against its table ---------------------------------------------------------------


@pytest.mark.parametrize(("depth", "factor"), [(10, 2), (16, 1)])
def test_wide_residual_networks(fp64, depth, factor):
    model = wide_resnet.wide_resnet(
        depth, factor, image_shape=(8, 12, 3), classes=5, norm=GhostBatchNormalization
    )

    def plain(at, x):
        x = at.conv(x, "stem")
        for stage in range(3):
            for block in range((depth - 4) // 6):
                name, stride = f"stage{stage}_block{block}", 2 if stage and not block else 1
                y = at.norm_relu(x, f"{name}_norm0")
                if f"{name}_shortcut/kernel" in at.values:
                    x = at.conv(y, f"{name}_shortcut", stride)
                y = at.norm_relu(at.conv(y, f"{name}_conv0", stride), f"{name}_norm1")
                x = x + at.conv(y, f"{name}_conv1")
        return at.linear(at.norm_relu(x, "last_norm").mean((1, 2)), "logits")

    agree(model, plain, (8, 12, 3))
    shortcuts = {v.path for v in model.variables if "shortcut" in v.path}
    thin = factor == 1  # its first block makes as many channels as it gets
    assert len(shortcuts) == (2 if thin else 3)


@pytest.mark.parametrize("hidden", [(), (64, 32)])
def test_vgg(fp64, hidden):
    model = vgg.vgg16(hidden, image_shape=(32, 32, 3), classes=5, norm=GhostBatchNormalization)

    def plain(at, x):
        for stage, convolutions in enumerate([2, 2, 3, 3, 3]):
            for i in range(convolutions):
                layer = f"stage{stage}_conv{i}"
                x = at.norm_relu(at.conv(x, layer), f"{layer}_norm")
            x = pool(x, 2, 2, by=np.nanmax)
        assert x.shape[1:] == (1, 1, 512)
        for i in range(len(hidden)):
            x = relu(at.linear(x, f"hidden{i}"))
        return at.linear(x, "logits")

    agree(model, plain, (32, 32, 3))


def test_vgg_has_the_convolutions_of_keras():
    model = models.build("vgg16-linear", GhostBatchNormalization, image_shape=CIFAR10[0], classes=5)
    of_keras = keras.applications.VGG16(include_top=False, weights=None)
    kernels = [v.shape for v in of_keras.trainable_variables if len(v.shape) == 4]
    assert kernels == [v.shape for v in model.trainable_variables if len(v.shape) == 4]


def test_alexnet(fp64):
    model = models.build("alexnet", GhostBatchNormalization, image_shape=(63, 79, 3), classes=5)

    def plain(at, x):
        x = at.conv(x, "conv0", 4, 2)
        x = at.norm_relu(pool(x, 3, 2, by=np.nanmax), "norm0")
        for i in range(1, 5):
            x = at.conv(x, f"conv{i}")
            if i in (1, 4):
                x = pool(x, 3, 2, by=np.nanmax)
            x = at.norm(relu(x), f"norm{i}")
        for i in range(2):
            x = at.norm_relu(at.linear(x, f"hidden{i}", bias=False), f"hidden{i}_norm")
        return at.linear(x, "logits")

    agree(model, plain, (63, 79, 3))


def test_densenet(fp64):
    model = densenet.densenet_bc(
        22, 4, image_shape=(4, 12, 3), classes=5, norm=GhostBatchNormalization
    )

    def plain(at, x):
        x = at.conv(x, "stem")
        for block in range(3):
            if block:
                name = f"transition{block}"
                channels = x.shape[-1]
                x = at.conv(at.norm_relu(x, f"{name}_norm"), f"{name}_conv")
                assert x.shape[-1] == channels // 2
                x = pool(x, 2, 2, by=np.nanmean)
            for layer in range(3):
                name = f"block{block}_layer{layer}"
                y = at.conv(at.norm_relu(x, f"{name}_narrow_norm"), f"{name}_narrow_conv")
                assert y.shape[-1] == 16
                y = at.conv(at.norm_relu(y, f"{name}_grow_norm"), f"{name}_grow_conv")
                x = np.concatenate([x, y], axis=-1)
        return at.linear(at.norm_relu(x, "last_norm").mean((1, 2)), "logits")

    agree(model, plain, (4, 12, 3))


def test_mobilenet_is_that_of_keras(fp64):
    """Keras pads an even side only behind it: the same network on mirrored images and kernels."""
    model = models.build(
        "mobilenet",
        partial(GhostBatchNormalization, epsilon=1e-3),
        image_shape=(64, 64, 3),
        classes=7,
    )
    of_keras = keras.applications.MobileNet(
        (64, 64, 3), weights=None, classes=7, dropout=0.0, classifier_activation=None
    )
    cut = [layer for layer in of_keras.layers if isinstance(layer, keras.layers.ReLU)]
    assert len(cut) == 27 and all(layer.max_value == 6 for layer in cut)
    for layer in cut:
        layer.max_value = None  # as in the paper
    shake(model)
    weights = [np.asarray(v.value) for v in model.variables]
    for variable, value in zip(of_keras.variables, weights, strict=True):
        mirrored = value[::-1, ::-1] if value.ndim == 4 else value
        variable.assign(mirrored.reshape(variable.shape))
    images = np.random.default_rng(1).normal(size=(2, 64, 64, 3))
    found = model(images, training=False)
    expected = of_keras(images[:, ::-1, ::-1], training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    differ(expected)


# --- what they say of their variables, and begin with ---------------------------------------------


def test_kernels_are_decayed_and_those_of_depthwise_convolutions_are_not(built):
    model, _, name = built
    kernels = {v.path for v in model.variables if v.path.endswith("/kernel")}
    depthwise = {path for path in kernels if path.endswith("_depth/kernel")}
    assert len(depthwise) == {"mobilenet": 13, "darts": 18 * 11}.get(name, 0)
    assert {v.path for v in model.variables if carries(v, DECAY)} == kernels - depthwise
    assert {v.path for v in model.variables if carries(v, ADAPT)} == kernels


# He's rule over the channels that are made; PyTorch's ±1 / sqrt(inputs), over sqrt(3).
DEVIATIONS = {
    "wrn28-10": {"stage1_block1_conv0": (2 / (9 * 320)) ** 0.5},
    "densenet100-12": {"block2_layer9_narrow_conv": (2 / 48) ** 0.5},
    "vgg16": {"stage3_conv0": (9 * 256 * 3) ** -0.5, "hidden1": (4096 * 3) ** -0.5},
    "darts": {
        "cell19_input0": (576 * 3) ** -0.5,
        "cell19_node2_0_1_depth": (9 * 3) ** -0.5,
        "auxiliary_conv1": (4 * 128 * 3) ** -0.5,
    },
    "alexnet": {"conv1": (25 * 64 * 3) ** -0.5},
    "mobilenet": {"pair12_depth": (9 * 3) ** -0.5, "pair12_point": (1024 * 3) ** -0.5},
}


def test_kernels_begin_as_their_source_says(built):
    model, _, name = built
    for layer, deviation in DEVIATIONS[name].items():
        kernel = np.asarray(model.get_layer(layer).kernel)
        assert kernel.std() == pytest.approx(deviation, rel=0.03)
        assert abs(kernel.mean()) < 0.03 * deviation


def test_no_two_kernels_begin_alike(built):
    """Keras draws the same numbers again from an initializer that is shared."""
    kernels = [v for v in built[0].variables if v.path.endswith("kernel")]
    corners = [np.asarray(v).ravel()[:4].tobytes() for v in kernels]
    assert len(set(corners)) == len(kernels) > 7


@pytest.mark.parametrize("name", ["vgg16", "vgg16-linear", "alexnet", "densenet100-12"])
def test_images_that_are_too_small_are_refused(name):
    least = models.network(name).smallest
    with pytest.raises(ConfigError, match=f"{name} needs images of {least} .* have {least - 1};"):
        models.build(name, GhostBatchNormalization, image_shape=(99, least - 1, 3), classes=5)
