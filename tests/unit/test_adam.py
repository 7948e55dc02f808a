"""Adam and AdamW in float64, against Keras' own and against the formula written out in numpy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist import optim
from ba_dist.config import Optimizer
from ba_dist.errors import ConfigError
from ba_dist.models.tags import DECAY
from ba_dist.run import checkpoint

RULES = pytest.mark.parametrize("name", ["adam", "adamw"])
STEPS, RATE = 7, 0.05
SHAPES = {"kernel": (5, 3), "bias": (3,)}
SETTINGS = {"beta1": 0.8, "beta2": 0.97, "epsilon": 1e-3, "weight_decay": 0.1}


def variables():
    numbers = np.random.default_rng(0)
    made = [
        keras.Variable(numbers.normal(size=shape), dtype="float64", name=name)
        for name, shape in SHAPES.items()
    ]
    made[0].ba_dist_tags = frozenset([DECAY])
    return made


def gradients(step):
    """Of very different sizes, one of them 0 all the time."""
    numbers = np.random.default_rng(step + 1)
    kernel, bias = (numbers.normal(size=shape) for shape in SHAPES.values())
    kernel[:, 1] *= 1e-6
    bias[2] = 0
    return [kernel, bias]


@pytest.fixture(autouse=True)
def single_precision():
    yield
    keras.config.set_floatx("float32")


class Mine:
    """A rule with its variables, in one tf.function as in a step."""

    def __init__(self, name, **settings):
        self.config = Optimizer(optimizer=name, **{**SETTINGS, **settings})
        self.variables = variables()
        self.rule = optim.build(self.variables, self.config)
        self.function = tf.function(self.rule.apply, autograph=False)

    def __call__(self, steps):
        for step in steps:
            numbers = optim.hyperparameters(self.config, RATE / (1 + step))
            hyper = {key: tf.constant(value, tf.float64) for key, value in numbers.items()}
            self.function([tf.constant(g) for g in gradients(step)], hyper)
        return [v.numpy() for v in self.variables]

    def state(self):
        return {**{v.path: v for v in self.variables}, **self.rule.slots}


@RULES
def test_it_is_the_rule_of_the_papers(name):
    found = Mine(name)(range(STEPS))
    b1, b2, epsilon, _ = SETTINGS.values()
    for place, variable in enumerate(variables()):
        w, first, second = variable.numpy(), 0, 0
        decay = SETTINGS["weight_decay"] if place == 0 else 0
        for step in range(STEPS):
            rate, g = RATE / (1 + step), gradients(step)[place]
            g = g + decay * w if name == "adam" else g
            first, second = b1 * first + (1 - b1) * g, b2 * second + (1 - b2) * g**2
            unbiased = first / (1 - b1 ** (step + 1)), second / (1 - b2 ** (step + 1))
            moved = unbiased[0] / (np.sqrt(unbiased[1]) + epsilon)
            w = w - rate * (moved + (decay * w if name == "adamw" else 0))
        np.testing.assert_allclose(found[place], w, rtol=1e-13, atol=1e-15)


@RULES
def test_it_is_that_of_keras(name):
    """Keras adds ε before the correction of the second moment: so it gets another ε each step.

    It rounds its settings to float32: those here need no rounding. Its Adam has no L2 penalty in
    the gradient: compared without.
    """
    decay = 0.125 if name == "adamw" else 0.0
    betas, epsilon = (0.875, 0.96875), 1e-3
    settings = {"beta1": betas[0], "beta2": betas[1], "epsilon": epsilon, "weight_decay": decay}
    found = Mine(name, **settings)(range(STEPS))
    keras.config.set_floatx("float64")  # in which Keras keeps its rate
    theirs = variables()
    kind = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[name]
    rule = kind(beta_1=betas[0], beta_2=betas[1], weight_decay=decay or None)
    rule.exclude_from_weight_decay(var_list=[theirs[1]])
    for step in range(STEPS):
        rule.learning_rate = RATE / (1 + step)
        rule.epsilon = epsilon * np.sqrt(1 - betas[1] ** (step + 1))
        rule.apply([tf.constant(g) for g in gradients(step)], theirs)
    for mine, other in zip(found, theirs, strict=True):
        np.testing.assert_allclose(mine, other.numpy(), rtol=1e-12, atol=1e-15)


@RULES
def test_a_saved_rule_goes_on_bit_for_bit(name, tmp_path):
    whole, first, second = Mine(name), Mine(name), Mine(name)
    whole(range(STEPS))
    first(range(3))
    arrays = {key: np.array(v.numpy()) for key, v in first.state().items()}
    path = checkpoint.save(tmp_path, checkpoint.Checkpoint(3, arrays, {}), 1)
    checkpoint.restore(checkpoint.load(path).arrays, second.state())
    second(range(3, STEPS))
    for key, value in whole.state().items():
        assert second.state()[key].numpy().tobytes() == value.numpy().tobytes(), key


def test_without_decay_both_are_the_same():
    adam, adamw = (Mine(name, weight_decay=0.0)(range(STEPS)) for name in ("adam", "adamw"))
    for one, other in zip(adam, adamw, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(("flag", "value"), [("beta1", 1.0), ("beta2", 1.0), ("epsilon", 0.0)])
def test_what_would_divide_by_zero_is_refused(flag, value):
    from ba_dist.config import override
    from ba_dist.recipes import recipe

    with pytest.raises(ConfigError, match=f"--{flag} is {value}"):
        override(recipe("quickstart"), {flag: value})
