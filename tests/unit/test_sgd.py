"""SGD, with Nesterov's momentum, and LARS in float64, against their papers in plain numpy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist import optim
from ba_dist.config import Optimizer
from ba_dist.models.tags import ADAPT, DECAY

STEPS, RATE, MOMENTUM, DECAYED, TRUST = 9, 0.3, 0.8, 0.05, 0.02
# Shape and tags, as layers give them; one kernel begins at 0, and one never has a gradient.
KINDS = {
    "kernel": ((5, 3), (DECAY, ADAPT)),
    "depthwise": ((3, 3), (ADAPT,)),
    "bias": ((3,), ()),
    "empty": ((2, 2), (DECAY, ADAPT)),
    "still": ((2, 2), (ADAPT,)),
}


def variables():
    numbers = np.random.default_rng(0)
    made = []
    for name, (shape, tags) in KINDS.items():
        value = numbers.normal(size=shape) * (name != "empty")
        made.append(keras.Variable(value, dtype="float64", name=name))
        made[-1].ba_dist_tags = frozenset(tags)
    return made


def gradient(name, step):
    numbers = np.random.default_rng([step, *map(ord, name)])
    return numbers.normal(size=KINDS[name][0]) * (name != "still") * 10.0 ** -(step % 3)


def rate(step):
    return RATE / (1 + step)


def moved(**settings):
    """Name → weights after some steps of the package's rule."""
    config = Optimizer(momentum=MOMENTUM, **{"weight_decay": DECAYED, **settings})
    found = variables()
    function = tf.function(optim.build(found, config).apply, autograph=False)
    for step in range(STEPS):
        numbers = optim.hyperparameters(config, rate(step))
        hyper = {key: tf.constant(value, tf.float64) for key, value in numbers.items()}
        function([tf.constant(gradient(name, step)) for name in KINDS], hyper)
    return {name: v.numpy() for name, v in zip(KINDS, found, strict=True)}


def compared(found, rule):
    for name, variable in zip(KINDS, variables(), strict=True):
        np.testing.assert_allclose(
            found[name], rule(name, variable.numpy()), rtol=1e-12, atol=1e-15
        )


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, DECAYED])
def test_sgd_is_the_rule_of_the_authors_code(nesterov, decay):
    def rule(name, w):
        velocity = np.zeros_like(w)
        for step in range(STEPS):
            g = gradient(name, step) + (decay * w if DECAY in KINDS[name][1] else 0)
            velocity = MOMENTUM * velocity + g
            w = w - rate(step) * (g + MOMENTUM * velocity if nesterov else velocity)
        return w

    compared(moved(nesterov=nesterov, weight_decay=decay), rule)


@pytest.mark.parametrize("nesterov", [False, True])
def test_with_a_rate_that_stays_it_is_that_of_sutskever_et_al(nesterov):
    """Their equations 1 to 4 move θ by v ← μ·v - η·∇f(θ), Nesterov's by ∇f(θ + μ·v).

    The weights of a network are then the point where the gradient is taken. f is a parabola.
    """
    numbers = np.random.default_rng(1)
    root = numbers.normal(size=(6, 6))
    curvature, theta = root @ root.T / 6, numbers.normal(size=6)
    weight = keras.Variable(theta, dtype="float64", name="w")
    rule = optim.build([weight], Optimizer(nesterov=nesterov, weight_decay=0.0))
    numbers = {"learning_rate": 0.1, "momentum": MOMENTUM, "weight_decay": 0.0}
    hyper = {key: tf.constant(value, tf.float64) for key, value in numbers.items()}
    velocity = np.zeros(6)
    for _ in range(30):
        ahead = theta + MOMENTUM * velocity if nesterov else theta
        np.testing.assert_allclose(weight.numpy(), ahead, rtol=1e-10, atol=1e-13)
        rule.apply([tf.constant(curvature @ weight.numpy())], hyper)
        velocity = MOMENTUM * velocity - 0.1 * (curvature @ ahead)
        theta = theta + velocity


@pytest.mark.parametrize("decay", [0.0, DECAYED])
def test_lars_is_that_of_you_et_al(decay):
    def rule(name, w):
        tags, velocity = KINDS[name][1], np.zeros_like(w)
        beta = decay if DECAY in tags else 0
        for step in range(STEPS):
            g = gradient(name, step)
            norms = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
            local = 1
            if ADAPT in tags and norms[0] > 0 and norms[1] + beta * norms[0] > 0:
                local = TRUST * norms[0] / (norms[1] + beta * norms[0])
            velocity = MOMENTUM * velocity + rate(step) * local * (g + beta * w)
            w = w - velocity
        return w

    found = moved(optimizer="lars", trust=TRUST, weight_decay=decay)
    compared(found, rule)
    assert all(np.isfinite(value).all() for value in found.values())


def test_lars_moves_a_kernel_alike_whatever_the_size_of_its_gradient(monkeypatch):
    """That is what it is for: without decay, only the gradient's direction counts."""
    before = moved(optimizer="lars", trust=TRUST, weight_decay=0.0)
    small = gradient
    monkeypatch.setitem(globals(), "gradient", lambda name, step: 1e6 * small(name, step))
    after = moved(optimizer="lars", trust=TRUST, weight_decay=0.0)
    for name in ("kernel", "depthwise"):
        np.testing.assert_allclose(before[name], after[name], rtol=1e-10)
    assert abs(after["bias"]).max() > 1e4 * abs(before["bias"]).max()
