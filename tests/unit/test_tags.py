"""What layers say of their variables: decay, LARS, a row for each instance."""

import re

import keras
import pytest

from ba_dist import models, optim
from ba_dist.config import Config, Optimizer, override
from ba_dist.errors import ConfigError
from ba_dist.models.tags import ADAPT, DECAY, INSTANCE, carries, layers, tag


class Counting(keras.layers.Layer):
    """A layer of a script, with its own tags."""

    tags = {"count": (INSTANCE,), "scale": (DECAY,)}

    def build(self, shape):
        self.scale = self.add_weight(shape=(), name="scale")
        self.count = self.add_weight(shape=(4,), trainable=False, name="count")

    def call(self, x):
        return x * self.scale


@pytest.fixture
def model():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="a_bias_in_the_name")(images)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.Sequential([keras.layers.SeparableConv2D(4, 3, name="separable")], name="inner")(x)
    x = Counting(name="counting")(keras.layers.GlobalAveragePooling2D()(x))
    built = keras.Model(images, keras.layers.Dense(2, name="logits")(x))
    tag(built)
    return built


def carrying(model, wanted):
    return {"/".join(v.path.split("/")[-2:]) for v in model.variables if carries(v, wanted)}


def test_kernels_are_decayed_wherever_they_lie_and_nothing_else(model):
    kernels = {"a_bias_in_the_name/kernel", "separable/pointwise_kernel", "logits/kernel"}
    assert carrying(model, DECAY) == kernels | {"counting/scale"}
    depthwise = {"depthwise/kernel", "separable/depthwise_kernel"}
    assert carrying(model, ADAPT) == kernels | depthwise
    assert carrying(model, INSTANCE) == {"counting/count"}


def test_a_variable_without_tags_carries_none():
    assert not carries(keras.Variable(1.0), DECAY)


def test_names_are_checked_by_their_registry():
    with pytest.raises(ConfigError, match="--optimizer 'adam-w' is unknown; choose from sgd"):
        optim.check(Optimizer(optimizer="adam-w"))
    with pytest.raises(ConfigError, match="--model 'resnet9' is unknown; choose from resnet50, "):
        models.network("resnet9")


def test_a_name_that_no_registry_has_stops_a_run_before_it_begins(tmp_path):
    from ba_dist.training import train

    folder = tmp_path / "run"
    for wrong in ({"model": "resnet9"}, {"optimizer": "adam-w"}):
        with pytest.raises(ConfigError, match="is unknown"):
            train(override(Config("test"), {"run_dir": str(folder), **wrong}))
    assert not folder.exists()


# The CIFAR residual networks differ in nothing but their depth.
BUILT = [name for name in models.NETWORKS if not re.fullmatch(r"resnet\d+", name)]
BUILT += ["resnet8", "resnet18", "resnet50"]


@pytest.mark.parametrize("name", BUILT)
def test_no_network_decays_biases_normalisation_or_depthwise_kernels(name):
    """Weight decay as in the authors' regimes; by shapes and classes, not by the tags' own rule."""
    facts = {"image_shape": (64, 64, 3), "classes": 10}
    if models.network(name).task != "classification":
        pytest.skip("its facts are those of another task")
    built = models.build(name, keras.layers.BatchNormalization, **facts)
    depthwise = {
        id(variable)
        for layer in layers(built)
        if type(layer).__name__ == "DepthwiseConv2D"
        for variable in layer.trainable_variables
    }
    for variable in built.trainable_variables:
        kernel = len(variable.shape) > 1
        assert carries(variable, ADAPT) == kernel, variable.path
        assert carries(variable, DECAY) == (kernel and id(variable) not in depthwise), variable.path
