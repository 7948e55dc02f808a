"""Networks that other programs load: in layers of Keras alone, from pixels to the same logits."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist import models
from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation
from ba_dist.data.sources import ImageInfo
from ba_dist.errors import UserError
from ba_dist.models import weights
from ba_dist.models.layers.dropout import InstanceDropout
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
from ba_dist.models.portable import own_layers, portable

INFO = ImageInfo("test", (9, 8, 3), 5, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
FACTS = {"image_shape": INFO.image_shape, "classes": INFO.classes}


def own(image_shape, classes):
    layers = [
        keras.Input(image_shape),
        keras.layers.Conv2D(4, 3),
        GhostBatchNormalization(epsilon=1e-3),
        InstanceDropout(0.5, "drop"),
        keras.layers.Flatten(),
        keras.layers.Dense(classes),
    ]
    return keras.Sequential(layers)


def network(name):
    registered = name in models.NETWORKS
    model = models.build(name, GhostBatchNormalization, **FACTS) if registered else own(**FACTS)
    noise = np.random.default_rng(0)
    for variable in model.variables:
        if "kernel" not in variable.path:
            variable.assign(0.5 + noise.random(variable.shape))
    return model


def pixels():
    return np.random.default_rng(1).integers(0, 256, (6, *INFO.image_shape)).astype(np.uint8)


def expected(model):
    """As evaluation does it: the run's own standardisation, then its network."""
    augmentation = Augmentation(Augment(), INFO)
    return np.asarray(model(augmentation.finish(pixels(), {}), training=False))


LOAD = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ba_dist":
            raise ImportError("ba_dist is not installed")

sys.meta_path.insert(0, Nowhere())
sys.path = [folder for folder in sys.path if folder != ""]
import keras, numpy as np, tensorflow as tf
pixels = np.load("pixels.npy")
for name in ("resnet8", "own"):
    model = keras.models.load_model(f"{name}.keras")
    np.save(f"{name}-keras.npy", model.predict(pixels, verbose=0))
    np.save(f"{name}-float.npy", model(pixels.astype("float32")))
saved = tf.saved_model.load("saved")
np.save("saved.npy", saved.serve(pixels))
assert "ba_dist" not in sys.modules
"""


def test_it_loads_where_ba_dist_is_not_and_gives_the_same_logits(tmp_path):
    np.save(tmp_path / "pixels.npy", pixels())
    answers = {}
    for name in ("resnet8", "own"):
        model = network(name)
        answers[name] = expected(model)
        plain = portable(model, INFO.image_shape, INFO.mean, INFO.std)
        assert own_layers(plain) == []
        plain.save(tmp_path / f"{name}.keras")
    signature = [keras.InputSpec(dtype="uint8", shape=(None, *INFO.image_shape))]
    plain.export(tmp_path / "saved", "tf_saved_model", verbose=False, input_signature=signature)
    command = [sys.executable, "-c", LOAD]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, logits in answers.items():
        for form in ("keras", "float"):
            found = np.load(tmp_path / f"{name}-{form}.npy")
            np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "saved.npy"), answers["own"], 1e-5, 1e-5)


def test_networks_for_imagenet(tmp_path):
    model = network("resnet18")
    plain = portable(model, INFO.image_shape, INFO.mean, INFO.std)
    answers = expected(model)
    np.testing.assert_allclose(plain(pixels()), answers, 1e-5, 1e-5 * np.abs(answers).max())


def test_a_run_can_start_from_what_was_exported(tmp_path):
    model = network("resnet8")
    portable(model, INFO.image_shape, INFO.mean, INFO.std).save(tmp_path / "w.keras")
    other = models.build("resnet8", GhostBatchNormalization, **FACTS)
    weights.put(weights.read(tmp_path / "w.keras", other), other)
    np.testing.assert_array_equal(expected(other), expected(model))


def test_a_class_of_ones_own_is_refused_and_a_layer_of_ones_own_named():
    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    class Whole(keras.Model):
        def call(self, x):
            return tf.reduce_mean(x, [1, 2])

    images = keras.Input(INFO.image_shape)
    made = keras.Model(images, keras.layers.GlobalAveragePooling2D()(Mine()(images)))
    assert own_layers(portable(made, INFO.image_shape, INFO.mean, INFO.std)) == ["Mine"]
    with pytest.raises(UserError, match="is a class of its own.*X.npz"):
        portable(Whole(), INFO.image_shape, INFO.mean, INFO.std)


class Block(keras.layers.Layer):
    """Its inner layers have names that Keras counts, so those of a copy are others."""

    def __init__(self, width, **common):
        super().__init__(**common)
        self.width, self.inner = width, keras.layers.Dense(width)
        self.drop = keras.layers.Dropout(0.5)
        self.norm = keras.layers.BatchNormalization()

    def build(self, shape):
        self.inner.build(shape)
        self.norm.build((*shape[:-1], self.width))

    def call(self, x, training=False):
        return self.drop(self.norm(self.inner(x), training=training), training=training)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def test_layers_inside_of_ones_own_layers_keep_their_weights():
    images = keras.Input(INFO.image_shape)
    x = GhostBatchNormalization()(Block(4)(images))
    x = keras.Sequential([keras.layers.Conv2D(3, 2), keras.layers.Flatten()])(x)
    model = keras.Model(images, Block(INFO.classes)(x))
    noise = np.random.default_rng(2)
    for variable in model.weights:
        variable.assign(0.5 + noise.random(variable.shape))
    found = portable(model, INFO.image_shape, INFO.mean, INFO.std)(pixels(), training=False)
    np.testing.assert_allclose(found, expected(model), rtol=1e-4)


def test_what_cannot_be_copied_is_one_message_that_says_what_to_do():
    class Whole(keras.Model):
        def call(self, x):
            return tf.reduce_mean(x, [1, 2])

    class Forgetful(keras.layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, x):
            return self.function(x)

    images = keras.Input(INFO.image_shape)
    forgetful = Forgetful(lambda x: tf.reduce_mean(x, [1, 2]))
    for layer, said in (
        (Whole(), r"is a class of its own \(Whole\).*X\.npz.*returns keras\.Model"),
        (forgetful, r"\(Forgetful\) cannot be copied(.|\n)*needs get_config(.|\n)*X\.npz"),
    ):
        with pytest.raises(UserError, match=said):
            portable(keras.Model(images, layer(images)), INFO.image_shape, INFO.mean, INFO.std)
