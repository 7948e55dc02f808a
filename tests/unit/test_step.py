"""One step against the paper's formula: the mean over copies and samples, then SGD."""

import dataclasses
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist import models, step
from ba_dist.comm.vote import Vote, bins, edges, hear, tell
from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation
from ba_dist.data.batch import Batch, Instances, finish, pack
from ba_dist.data.sources import ImageInfo, Workers
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
from ba_dist.models.precision import set_precision
from ba_dist.models.tags import DECAY, carries
from ba_dist.optim.norm_matching import NormMatching
from ba_dist.optim.sgd import SGD
from ba_dist.rules.keys import augmentation_keys
from ba_dist.rules.layout import Layout
from ba_dist.tasks.classification import Classification

COPIES, SAMPLES, GHOST = 3, 16, 8
pytestmark = pytest.mark.usefixtures("single_precision")
# Of such pixels the step makes what they are.
INFO = ImageInfo("some", (8, 8, 1), 10, (0.0,), (1 / 255,))


def network(precision, channels=1):
    policy = set_precision(precision)
    keras.utils.set_random_seed(0)
    norm = partial(GhostBatchNormalization, GHOST)
    shape = (8, 8, channels)
    return models.build("resnet8", norm, image_shape=shape, classes=10), policy


def instances(seed=0):
    numbers = np.random.default_rng(seed)
    images = numbers.normal(size=(COPIES * SAMPLES, 8, 8, 1)).astype(np.float32)
    return tf.constant(images), tf.constant(np.tile(numbers.integers(0, 10, SAMPLES), COPIES))


def packed(config, smoothing):
    """A task of coloured images, and what goes to the device of all instances."""
    info = ImageInfo("some", (8, 8, 3), 10, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    task = Classification(Augmentation(config, info), smoothing)
    numbers = np.random.default_rng(0)
    images = list(numbers.integers(0, 256, (SAMPLES, 8, 8, 3), np.uint8))
    keys = batch_of(None, None).instances.keys
    labels = numbers.integers(0, 10, SAMPLES)
    return task, pack(task, images, labels, keys, ghost_batch=GHOST, workers=Workers(1))


def train_step(comm, precision="fp32", microbatch=0, *, momentum=0.0, decay=0.0, **more):
    """A step that is called with images, labels, a rate and whether this rank wishes to stop."""
    model, policy = network(precision)
    layout = Layout(1, COPIES, SAMPLES, 1, GHOST, microbatch)
    task = Classification(Augmentation(Augment(), INFO))
    rule = SGD(model.trainable_variables)
    return Called(
        *(task, model, rule),
        **{"layout": layout, "comm": comm, "precision": policy, **more},
        constants=(momentum, decay),
    )


class Called(step.TrainStep):
    def __init__(self, *arguments, constants, **named):
        super().__init__(*arguments, **named)
        self.momentum, self.decay = constants

    def __call__(self, images, labels, rate, stop, measure=False):
        hyper = {"learning_rate": rate, "momentum": self.momentum, "weight_decay": self.decay}
        hyper["measure"] = float(measure)
        return super().__call__(batch_of(images, labels), hyper, Vote(stop=stop))


def batch_of(images, labels):
    ids = np.tile(np.arange(SAMPLES), COPIES)
    copies = np.repeat(np.arange(COPIES), SAMPLES)
    instances = Instances(ids, copies, augmentation_keys(0, 0, ids, copies))
    return Batch(0, 0, {"images": images, "labels": labels}, instances, ids[:0])


def mean_gradient(images, labels, model=None):
    """1/(B·M) Σ_m Σ_n ∇ℓ in float64, ghost batch by ghost batch."""
    model = model or network("fp64")[0]
    weights = [v.value for v in model.trainable_variables]
    total = [np.zeros(w.shape) for w in weights]
    for start_ in range(0, len(labels), GHOST):
        part = slice(start_, start_ + GHOST)
        with tf.GradientTape() as tape:
            logits = model(tf.cast(images[part], tf.float64), training=True)
            loss = tf.reduce_sum(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels[part], logits)
            )
        gradients = tape.gradient(loss, weights)
        total = [t + g.numpy() for t, g in zip(total, gradients, strict=True)]
    return [t / len(labels) for t in total]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "config",
    [
        Augment(lighting=0.5),
        Augment(cutout=3),
        Augment(mixup=0.4),
        Augment(cutmix=1.0),
        Augment(lighting=0.5, cutout=3, mixup=0.4, cutmix=1.0),
    ],
    ids=str,
)
def test_the_graph_gives_the_bits_that_a_trace_has(config, smoothing):
    """TensorFlow's graph optimiser takes some sums and divisions apart, but not these."""
    task, inputs = packed(config, smoothing)
    tensors = {name: tf.constant(array) for name, array in inputs.items()}
    found = tf.function(task.finish, autograph=False)(tensors)
    for name, expected in finish(task, inputs).items():
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("microbatch", [8, 48])
def test_the_step_trains_on_the_pixels_that_a_trace_has(comm, microbatch):
    """Lighting, cutout, mixup and CutMix are done in its graph, microbatch by microbatch."""
    config = Augment(flip=True, lighting=0.5, cutout=3, mixup=0.4, cutmix=1.0)
    task, inputs = packed(config, 0.1)
    batch = dataclasses.replace(batch_of(None, None), inputs=inputs)
    seen, keras_model = finish(task, inputs), network("fp64", 3)[0]
    shares = []
    for start in range(0, len(seen["images"]), GHOST):
        rows = slice(start, start + GHOST)
        logits = keras_model(tf.cast(seen["images"][rows], tf.float64), training=True)
        shares.append(seen["labels"][rows].numpy() * tf.nn.log_softmax(logits).numpy())
    model, policy = network("fp64", 3)
    layout = Layout(1, COPIES, SAMPLES, 1, GHOST, microbatch)
    rule = SGD(model.trainable_variables)
    trained = step.TrainStep(task, model, rule, layout=layout, comm=comm, precision=policy)
    numbers = {"learning_rate": 0.0, "momentum": 0.0, "weight_decay": 0.0}
    outcome = trained(batch, numbers)
    assert inputs["images"].dtype == np.uint8
    assert outcome.loss == pytest.approx(-np.concatenate(shares).sum(1).mean(), rel=1e-12)


@pytest.mark.parametrize("microbatch", [8, 16, 24, 48])
def test_the_update_is_the_mean_gradient_over_copies_and_samples(comm, microbatch):
    images, labels = instances()
    expected = mean_gradient(images, labels)
    trained = train_step(comm, "fp64", microbatch)
    before = [v.numpy() for v in trained.model.trainable_variables]
    outcome = trained(images, labels, 0.5, False)
    moved = zip(before, trained.model.trainable_variables, expected, strict=True)
    for old, new, gradient in moved:
        np.testing.assert_allclose((old - new.numpy()) / 0.5, gradient, rtol=1e-9, atol=1e-12)
    norm = np.sqrt(sum((g**2).sum() for g in expected))
    np.testing.assert_allclose(outcome.grad_norm, norm, rtol=1e-9)


@pytest.mark.parametrize("microbatch", [8, 16, 24])
def test_a_last_microbatch_apart_from_the_loop_changes_no_bit(comm, microbatch):
    """Nor what BatchNorm keeps, which moves once a step."""
    images, labels = instances()
    found = []
    for apart in (False, True):
        trained = train_step(comm, microbatch=microbatch)
        tensors = trained._local.tensors(batch_of(images, labels))
        sums = tf.function(trained._local.sums, autograph=False)
        totals, gradients = sums(tensors, tf.constant(0), apart)
        moved = [v.numpy() for v in trained.model.non_trainable_variables]
        found.append([*(t.numpy() for t in [*totals, *gradients]), *moved])
    for looped, apart in zip(*found, strict=True):
        assert looped.tobytes() == apart.tobytes()


def test_a_gradient_longer_than_the_threshold_is_shortened_to_it(comm):
    """All variables by one share, with the norm of the gradient before in the outcome."""
    threshold = 0.5
    images, labels = instances()
    expected = mean_gradient(images, labels)
    norm = np.sqrt(sum((g**2).sum() for g in expected))
    assert norm > threshold
    trained = train_step(comm, "fp64", clip_norm=threshold)
    before = [v.numpy() for v in trained.model.trainable_variables]
    outcome = trained(images, labels, 0.5, False)
    moved = zip(before, trained.model.trainable_variables, expected, strict=True)
    for old, new, gradient in moved:
        clipped = (old - new.numpy()) / 0.5
        expected = gradient * threshold / norm
        np.testing.assert_allclose(clipped, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(outcome.grad_norm, norm, rtol=1e-9)


@pytest.mark.parametrize(("microbatch", "clip"), [(0, 0.0), (8, 0.0), (24, 0.7)])
def test_a_gradient_is_brought_to_the_mean_norm_of_the_copies(comm, microbatch, clip):
    """Measured in the first step, kept in the second; clipping sees the longer gradient."""
    layout = Layout(1, COPIES, SAMPLES, 1, GHOST, microbatch)
    more = {"matching": NormMatching(layout, comm), "clip_norm": clip}
    trained = train_step(comm, "fp64", microbatch, **more)
    ratio = None
    for seed, measure in ((0, True), (1, False)):
        images, labels = instances(seed)
        reference, _ = network("fp64")
        for variable, weight in zip(reference.variables, trained.model.variables, strict=True):
            variable.assign(weight)
        expected = mean_gradient(images, labels, reference)
        norm = np.sqrt(sum((g**2).sum() for g in expected))
        if measure:
            rows = [slice(copy * SAMPLES, (copy + 1) * SAMPLES) for copy in range(COPIES)]
            copies = [mean_gradient(images[part], labels[part], reference) for part in rows]
            ratio = np.mean([np.sqrt(sum((g**2).sum() for g in c)) for c in copies]) / norm
            assert ratio > 1.01
        before = [v.numpy() for v in trained.model.trainable_variables]
        outcome = trained(images, labels, 0.5, False, measure=measure)
        share = min(ratio, clip / norm) if clip else ratio
        moved = zip(before, trained.model.trainable_variables, expected, strict=True)
        for old, new, gradient in moved:
            found = (old - new.numpy()) / 0.5
            np.testing.assert_allclose(found, share * gradient, rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(outcome.grad_norm, norm, rtol=1e-9)
        np.testing.assert_allclose(trained.state()["norm_ratio"].numpy(), ratio, rtol=1e-9)


def test_a_measurement_that_is_not_finite_is_not_kept(comm):
    images, labels = instances()
    trained = train_step(comm, matching=NormMatching(Layout(1, COPIES, SAMPLES, 1, GHOST), comm))
    broken = tf.tensor_scatter_nd_update(images, [[0, 0, 0, 0]], [np.inf])
    assert not trained(broken, labels, 0.5, False, measure=True).finite
    assert trained.state()["norm_ratio"].numpy() == 1
    trained(images, labels, 0.5, False, measure=True)
    ratio = trained.state()["norm_ratio"].numpy()
    trained(broken, labels, 0.5, False, measure=True)
    assert trained.state()["norm_ratio"].numpy() == ratio > 1


def test_a_short_gradient_is_not_clipped_by_one_bit(comm):
    images, labels = instances()
    with_, without = (train_step(comm, clip_norm=c, momentum=0.9) for c in (1e6, 0.0))
    for _ in range(3):
        assert with_(images, labels, 0.1, False).loss == without(images, labels, 0.1, False).loss
    for name, variable in with_.state().items():
        assert variable.numpy().tobytes() == without.state()[name].numpy().tobytes(), name


def test_clipping_comes_after_the_scale_of_the_loss(comm):
    """The gradients of fp16 are 2^15 times as large before the division."""
    images, labels = instances()
    trained = train_step(comm, "fp16", clip_norm=0.01)
    before = [v.numpy() for v in trained.model.trainable_variables]
    assert trained(images, labels, 1.0, False).grad_norm > 0.5
    after = [v.numpy() for v in trained.model.trainable_variables]
    moved = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(before, after, strict=True)))
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_momentum_and_weight_decay_follow_the_rule_on_kernels_only(comm):
    trained = train_step(comm, "fp64", momentum=0.9, decay=0.1)
    weights = {v.path: v.numpy() for v in trained.model.trainable_variables}
    velocity = {path: np.zeros_like(w) for path, w in weights.items()}
    for seed in range(3):
        images, labels = instances(seed)
        reference, _ = network("fp64")
        for variable in reference.trainable_variables:
            variable.assign(weights[variable.path])
        with tf.GradientTape() as tape:
            logits = reference(tf.cast(images, tf.float64), training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        values = [v.value for v in reference.trainable_variables]
        for variable, gradient in zip(
            reference.trainable_variables, tape.gradient(loss, values), strict=True
        ):
            path = variable.path
            decayed = path.split("/")[-1] == "kernel"
            slope = gradient.numpy() + (0.1 * weights[path] if decayed else 0)
            velocity[path] = 0.9 * velocity[path] + slope
            weights[path] = weights[path] - 0.05 * velocity[path]
        trained(images, labels, 0.05, False)
    for variable in trained.model.trainable_variables:
        np.testing.assert_allclose(variable.numpy(), weights[variable.path], rtol=1e-8, atol=1e-10)


def test_only_kernels_are_decayed():
    model, _ = network("fp32")
    decayed = {v.path for v in model.trainable_variables if carries(v, DECAY)}
    assert decayed == {v.path for v in model.trainable_variables if v.path.endswith("/kernel")}
    assert len(decayed) == 8


def test_loss_and_accuracy_are_means_over_all_instances(comm):
    images, labels = instances()
    trained = train_step(comm, "fp64")
    reference, _ = network("fp64")
    logits = reference(tf.cast(images, tf.float64), training=True).numpy()
    exact = -np.log(np.exp(logits)[np.arange(len(labels)), labels] / np.exp(logits).sum(1))
    outcome = trained(images, labels, 0.0, True)
    np.testing.assert_allclose(outcome.loss, exact.mean(), rtol=1e-9)
    assert outcome.metrics["accuracy"] == pytest.approx((logits.argmax(1) == labels.numpy()).mean())
    assert outcome.stop is True and outcome.finite is True


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gradient_that_is_not_finite_changes_nothing(comm, precision):
    images, labels = instances()
    trained = train_step(comm, precision)
    before = {name: v.numpy() for name, v in trained.state().items()}
    broken = tf.tensor_scatter_nd_update(images, [[0, 0, 0, 0]], [np.inf])
    outcome = trained(broken, labels, 0.5, False)
    assert not outcome.finite
    for name, variable in trained.state().items():
        if name != "loss_scale":
            np.testing.assert_array_equal(variable.numpy(), before[name], name)
    scale = before["loss_scale"]
    assert trained.loss_scale.numpy() == (scale / 2 if precision == "fp16" else 1)


def test_fp16_scales_the_loss_without_changing_the_update(comm):
    images, labels = instances()
    full, half = train_step(comm, "fp32"), train_step(comm, "fp16")
    full_outcome, half_outcome = (s(images, labels, 0.1, False) for s in (full, half))
    assert half_outcome.grad_norm == pytest.approx(full_outcome.grad_norm, rel=0.05)
    assert half.good_steps.numpy() == 1


def test_fp16_on_the_wire_scales_the_loss_without_changing_the_update(comm):
    images, labels = instances()
    plain, sent = train_step(comm), train_step(comm, wire="fp16")
    for trained in (plain, sent):
        trained(images, labels, 0.1, False)
    assert sent.loss_scale.numpy() == 2.0**15 and sent.good_steps.numpy() == 1
    for one, other in zip(
        plain.model.trainable_variables, sent.model.trainable_variables, strict=True
    ):
        # Powers of two change no bit, but of what is too small for float32.
        np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_learns(comm, precision):
    images, labels = instances()
    trained = train_step(comm, precision, momentum=0.9)
    losses = [trained(images, labels, 0.05, False).loss for _ in range(25)]
    assert losses[-1] < losses[0] / 2


def test_what_ranks_tell_adds_up_to_what_each_said():
    votes = [
        Vote(stop=True, corrupt=2, seconds=(0.1, 0.2, 0.3, 0.4, 0.5)),
        Vote(save=True),
        Vote(stop=True, corrupt=1, seconds=(0, 6, 0.3, 8, 1e9)),
    ]
    flags, paces = hear(sum(map(tell, votes)))
    assert flags == [2, 1, 3]
    assert paces.sum(axis=1).tolist() == [2] * 5
    assert paces[0, 0] == 1 and paces[2].max() == 2 and paces[4, -1] == 1
    for phase, seconds in zip(paces, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        lower, upper = edges(int(bins(np.array(seconds))))
        assert lower <= seconds < upper and phase[bins(np.array(seconds))] >= 1


def test_a_vote_is_as_long_on_any_number_of_ranks():
    """And as exact in the precision of the gradient: counts of up to 16 million ranks."""
    row = tell(Vote(seconds=(1, 2, 3, 4, 5)))
    assert row.nbytes < 5000
    assert (np.float32(2**24 - 1) * row.astype(np.float32) == (2.0**24 - 1) * row).all()


@pytest.mark.parametrize("microbatch", [8, 16, 48])
def test_gradients_of_the_copies_are_those_before_the_sum(comm, microbatch):
    """Each is the mean over the samples of one copy; their mean is the gradient of the step."""
    images, labels = instances()
    trained = train_step(comm, "fp64", microbatch)
    before = {name: v.numpy() for name, v in trained.state().items()}
    found = trained.copy_gradients(batch_of(images, labels))
    for name, variable in trained.state().items():
        np.testing.assert_array_equal(variable.numpy(), before[name], name)
    rows = [slice(copy * SAMPLES, (copy + 1) * SAMPLES) for copy in range(COPIES)]
    for copy, part in enumerate(rows):
        expected = np.concatenate([g.ravel() for g in mean_gradient(images[part], labels[part])])
        np.testing.assert_allclose(found[copy], expected, rtol=1e-9, atol=1e-12)
    whole = np.concatenate([g.ravel() for g in mean_gradient(images, labels)])
    np.testing.assert_allclose(found.mean(0), whole, rtol=1e-9, atol=1e-12)
