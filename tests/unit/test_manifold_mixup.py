"""Manifold mixup against its formula in float64; where and with what it mixes follows from keys."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist import experiment, models, step
from ba_dist.comm import start
from ba_dist.config import Augment, override
from ba_dist.data.augment import Augmentation, mixing
from ba_dist.data.batch import Batch, Instances, finish, pack
from ba_dist.data.sources import ImageInfo, Workers
from ba_dist.errors import ConfigError
from ba_dist.models import portable
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
from ba_dist.models.layers.manifold_mixup import ManifoldMixup
from ba_dist.models.precision import set_precision
from ba_dist.models.tags import layers
from ba_dist.optim.sgd import SGD
from ba_dist.recipes import recipe
from ba_dist.rules.keys import augmentation_keys
from ba_dist.rules.layout import Layout
from ba_dist.tasks.classification import Classification

COPIES, SAMPLES, GHOST = 2, 16, 8
INFO = ImageInfo("some", (8, 8, 1), 10, (0.4,), (0.3,))
ALPHA = 0.8


@pytest.fixture(autouse=True)
def single_precision():
    yield
    set_precision("fp32")


def network():
    policy = set_precision("fp64")
    keras.utils.set_random_seed(0)
    norm = partial(GhostBatchNormalization, GHOST)
    facts = {"image_shape": (8, 8, 1), "classes": 10}
    return models.build("resnet8", norm, manifold_mixup=True, **facts), policy


def task():
    return Classification(Augmentation(Augment(flip=True), INFO), manifold=ALPHA)


def batch():
    ids, copies = np.tile(np.arange(SAMPLES), COPIES), np.repeat(np.arange(COPIES), SAMPLES)
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (SAMPLES, 8, 8, 1), np.uint8)
    labels = numbers.integers(0, 10, SAMPLES)
    keys = augmentation_keys(3, 0, ids, copies)
    inputs = pack(task(), list(images), labels, keys, ghost_batch=GHOST, workers=Workers(1))
    return Batch(0, 0, inputs, Instances(ids, copies, keys), ids[:0]), np.tile(labels, COPIES)


def by_hand(number):
    """(gradients, loss) of one step, the network cut in two and rows mixed one by one."""
    model, _ = network()
    layer = model.get_layer(f"manifold_mixup{number}")
    before = keras.Model(model.input, layer.input) if number else None
    after = keras.Model(layer.output, model.output)
    found, labels = batch()
    inputs = finish(task(), found.inputs)
    partner = found.inputs["manifold_partner"]
    weight = found.inputs["manifold_weight"].astype(np.float64)
    assert 0 < weight.min() < weight.max() < 1
    targets = np.zeros((len(labels), 10))
    for i, label in enumerate(labels):
        targets[i, label] += weight[i]
        targets[i, labels[i + partner[i]]] += 1 - weight[i]
    with tf.GradientTape() as tape:
        x = tf.cast(inputs["images"], tf.float64)
        x = before(x, training=True) if before else x
        rows = [
            weight[i] * x[i] + (1 - weight[i]) * x[i + int(partner[i])] for i in range(len(labels))
        ]
        logits = after(tf.stack(rows), training=True)
        loss = -tf.reduce_mean(tf.reduce_sum(targets * tf.nn.log_softmax(logits), 1))
    return tape.gradient(loss, [v.value for v in model.trainable_variables]), float(loss)


@pytest.mark.parametrize("number", range(mixing.MANIFOLD_LAYERS))
@pytest.mark.parametrize("microbatch", [8, 32])
def test_a_step_mixes_the_activations_of_one_layer_and_the_labels(number, microbatch):
    expected, loss = by_hand(number)
    model, policy = network()
    layout = Layout(1, COPIES, SAMPLES, 1, GHOST, microbatch)
    rule = SGD(model.trainable_variables, decays=False)
    trained = step.TrainStep(
        task(), model, rule, layout=layout, comm=start(), precision=policy, told=["manifold_layer"]
    )
    old = [v.numpy() for v in model.trainable_variables]
    numbers = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    result = trained(batch()[0], {**numbers, "manifold_layer": float(number)})
    # Labels are mixed in float32.
    assert result.loss == pytest.approx(loss, rel=1e-6)
    for before, variable, gradient in zip(old, model.trainable_variables, expected, strict=True):
        found, scale = before - variable.numpy(), np.abs(gradient).max()
        np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=1e-6 * scale)


def test_evaluation_and_export_know_nothing_of_it():
    marked, _ = network()
    norm = partial(GhostBatchNormalization, GHOST)
    keras.utils.set_random_seed(0)
    bare = models.build("resnet8", norm, image_shape=(8, 8, 1), classes=10)
    images = np.random.default_rng(1).normal(size=(4, 8, 8, 1))
    assert marked(images).numpy().tobytes() == bare(images).numpy().tobytes()
    exported = portable.portable(marked, (8, 8, 1), (0.0,), (1 / 255,))
    assert not portable.own_layers(exported)


# The others differ from one of these in their depth alone.
@pytest.mark.parametrize("name", ["resnet8", "resnet18", "resnet50", "wrn28-10"])
def test_every_network_that_says_so_has_its_layers(name):
    assert name in models.with_manifold_mixup()
    facts = {"image_shape": (32, 32, 3), "classes": 10}
    norm = keras.layers.BatchNormalization
    model = models.build(name, norm, manifold_mixup=True, **facts)
    numbers = [layer.number for layer in layers(model) if isinstance(layer, ManifoldMixup)]
    assert numbers == list(range(mixing.MANIFOLD_LAYERS))
    plain = models.build(name, norm, **facts)
    assert [v.path for v in plain.variables] == [v.path for v in model.variables]


def test_the_layer_follows_from_seed_and_step_alone():
    chosen = np.array([mixing.manifold_layer(5, step) for step in range(3000)])
    counts = np.bincount(chosen)
    assert len(counts) == mixing.MANIFOLD_LAYERS and abs(counts - 1000).max() < 120
    other = np.array([mixing.manifold_layer(6, step) for step in range(3000)])
    assert 0.25 < (chosen == other).mean() < 0.42
    config = override(recipe("quickstart"), {"manifold_mixup": 0.5, "seed": 5})
    hyper = experiment.hyperparameters(config, 10)
    assert [hyper(step)["manifold_layer"] for step in range(20)] == chosen[:20].tolist()


def test_weights_have_the_distribution_of_the_paper():
    """Beta(α, α): mean 1/2 and variance 1 / (8α + 4)."""
    numbers = np.random.default_rng(2).random((40_000, 2))
    drawn = mixing.draw_manifold(numbers, alpha=ALPHA, ghost_batch=32)
    weight = drawn["manifold_weight"]
    assert weight.mean() == pytest.approx(0.5, abs=0.005)
    assert weight.var() == pytest.approx(1 / (8 * ALPHA + 4), rel=0.02)
    rows = np.arange(len(numbers)) + drawn["manifold_partner"]
    assert (rows // 32 == np.arange(len(numbers)) // 32).all() and drawn["manifold_partner"].all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "vgg16"},
            "vgg16 has no layers that are marked for it; use 0, or one of resnet50, ",
        ),
        ({"mixup": 0.2}, "--manifold-mixup 0.5 and --mixup 0.2 exclude each other"),
        ({"cutmix": 1.0}, "--manifold-mixup 0.5 and --cutmix 1.0 exclude each other"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        experiment.check(override(recipe("quickstart"), {"manifold_mixup": 0.5, **changes}))


def test_a_ghost_batch_of_one_has_no_partner():
    with pytest.raises(ConfigError, match="--manifold-mixup mix instances of one ghost batch"):
        mixing.draw_manifold(np.zeros((4, 2)), alpha=1.0, ghost_batch=1)
