"""The average of the weights in float64: against TensorFlow's, in a step, saved, and exported."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist import optim
from ba_dist.analysis.export import export
from ba_dist.config import Optimizer
from ba_dist.errors import ConfigError
from ba_dist.models import variables
from ba_dist.optim.adam import Adam
from ba_dist.optim.average import WeightAverage
from ba_dist.run import checkpoint
from ba_dist.run.position import Position

from .test_step import instances, train_step

pytestmark = pytest.mark.usefixtures("single_precision")

STATISTICS, WEIGHT = "average/stem_norm/moving_variance", "average/stem/kernel"
UPDATES = "average_updates"


def averaging(comm):
    """A step of Adam on a network of float64, with its average."""
    trained = train_step(comm, "fp64")
    trained.rule = Adam(trained.model.trainable_variables)
    trained.average = WeightAverage(trained.model, 0.25)
    return trained


def bits(state):
    return {name: variable.numpy().tobytes() for name, variable in state.items()}


def small(decay):
    """The kernel of a small network with a generator's seed in it, and the network's average."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(3, dtype="float64", name="dense")
    model = keras.Sequential([dense, keras.layers.Dropout(0.5)], name="small")
    model.build((None, 4))
    return dense.kernel.value, WeightAverage(model, decay)


def test_it_is_that_of_tensorflow():
    """The decay grows from 1/10 over 2/11 to 1/4 and stays there; TensorFlow's is in float32."""
    kernel, average = small(0.25)
    assert set(average.slots) == {"average/small/dense/kernel", "average/small/dense/bias", UPDATES}
    updates = tf.Variable(0.0, dtype=tf.float64)
    theirs = tf.train.ExponentialMovingAverage(0.25, num_updates=updates)
    theirs.apply([kernel])
    mine, by_hand = average.slots["average/small/dense/kernel"], np.array(kernel.numpy())
    for step in range(6):
        kernel.assign(np.random.default_rng(step).normal(size=(4, 3)))
        average.move()
        updates.assign(step)
        theirs.apply([kernel])
        decay = min(0.25, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * kernel.numpy()
        np.testing.assert_allclose(mine.numpy(), by_hand, rtol=1e-13)
        np.testing.assert_allclose(mine.numpy(), theirs.average(kernel).numpy(), atol=1e-6)


def test_a_mean_begins_when_it_is_told():
    """Before it is the weights, bit for bit; then their plain mean; also after it was saved."""
    kernel, mean = small(None)
    average = mean.slots["average/small/dense/kernel"]
    seen = []
    for step in range(9):
        kernel.assign(np.random.default_rng(step).normal(size=(4, 3)))
        mean.move()
        if step < 3:
            assert mean.waits
            np.testing.assert_array_equal(average, kernel)
            if step == 2:
                mean.begin()
            continue
        seen.append(kernel.numpy().copy())
        np.testing.assert_allclose(average, np.mean(seen, 0), rtol=1e-13)
        if step == 5:  # another process goes on
            arrays = {name: np.array(v.numpy()) for name, v in mean.slots.items()}
            kernel, mean = small(None)
            checkpoint.restore(arrays, mean.slots)
            average = mean.slots["average/small/dense/kernel"]
            assert not mean.waits
    assert len(seen) == 6


def test_a_mean_begins_with_the_first_evaluation_that_is_no_better():
    """AWD-LSTM: worse than the best of those more than n before it; ties go on."""
    results = [9.0, 7.0, 8.0, None, 7.5, 6.9, 7.0, 7.0, 6.95]
    position = Position()
    found = [position.no_longer_betters(result, 2, less_is_better=True) for result in results]
    # 7.0 is as good as the best of 9, 7, 8, 7.5; 6.95 is worse than the best of those and 6.9.
    assert found == [False] * 8 + [True]
    position = Position()
    assert not position.no_longer_betters(0.5, 1, less_is_better=False)
    assert not position.no_longer_betters(0.4, 1, less_is_better=False)
    assert position.no_longer_betters(0.45, 1, less_is_better=False)


def test_less_may_be_better():
    position = Position(step=1)
    assert [position.is_best(r, less_is_better=True) for r in (9.0, 9.0, None, 8.0, 8.5)] == [
        True, False, False, True, False
    ]  # fmt: skip
    assert position.best == 8.0


def test_two_averages_exclude_each_other():
    with pytest.raises(ConfigError, match="--ema 0.9 and --average-after 5 are two averages"):
        optim.check(Optimizer(ema=0.9, average_after=5))


def test_a_step_averages_what_it_has_moved(comm):
    """Weights and moving statistics, after the update; nothing where the gradient has infinity,
    and Adam does not count such an update.
    """
    trained = averaging(comm)
    weights = variables.to_average(trained.model)
    expected = {name: weights[name].numpy() for name in (WEIGHT, STATISTICS)}
    for step in range(4):
        trained(*instances(step), 0.01, False)
        decay = min(0.25, (1 + step) / (10 + step))
        for name, value in expected.items():
            expected[name] = decay * value + (1 - decay) * weights[name].numpy()
            np.testing.assert_allclose(trained.state()[name].numpy(), expected[name], rtol=1e-12)
    before = bits(trained.state())
    images, labels = instances()
    trained(tf.tensor_scatter_nd_update(images, [[0, 0, 0, 0]], [np.inf]), labels, 0.01, False)
    assert bits(trained.state()) == before


def test_the_network_holds_the_average_for_a_while(comm):
    trained = averaging(comm)
    trained(*instances(), 0.01, False)
    before = bits(trained.state())
    averages = {name: before[name] for name in trained.average.slots}
    with pytest.raises(ZeroDivisionError), trained.averaged():
        held = bits(variables.to_average(trained.model))
        assert held == {name: averages[name] for name in held}
        assert held[WEIGHT] != before["model/stem/kernel"]
        raise ZeroDivisionError  # also where the evaluation fails
    assert bits(trained.state()) == before
    trained.average = None
    with trained.averaged():
        assert trained.model.variables[0].numpy().tobytes() == before["model/stem/kernel"]


def test_a_saved_average_goes_on_bit_for_bit(tmp_path):
    """Without a network, whose sums are the same in every process only as a run sets it up."""

    def go_on(kernel, average, steps):
        for step in steps:
            kernel.assign(np.random.default_rng(step).normal(size=(4, 3)))
            average.move()

    (one, whole), (two, first), (three, second) = (small(0.25) for _ in range(3))
    go_on(one, whole, range(6))
    go_on(two, first, range(3))
    arrays = {name: np.array(v.numpy()) for name, v in first.slots.items()}
    path = checkpoint.save(tmp_path, checkpoint.Checkpoint(3, arrays, {}), 1)
    checkpoint.restore(checkpoint.load(path).arrays, second.slots)
    go_on(three, second, range(3, 6))
    assert list(bits(second.slots).values()) == list(bits(whole.slots).values())


def test_what_is_exported_is_the_average(comm, tmp_path):
    trained = averaging(comm)
    trained(*instances(), 0.01, False)
    arrays = {name: np.array(v.numpy()) for name, v in trained.state().items()}
    checkpoint.save(checkpoint.folder_of(tmp_path), checkpoint.Checkpoint(1, arrays, {}), 1)
    export(tmp_path, f"{tmp_path}/weights.npz")
    written = np.load(tmp_path / "weights.npz")
    assert set(written) == {v.path for v in trained.model.variables}
    for path in written:
        assert written[path].tobytes() == arrays[f"average/{path}"].tobytes()
    assert written["stem/kernel"].tobytes() != arrays["model/stem/kernel"].tobytes()


def test_without_an_average_the_weights_are_exported():
    arrays = {"model/a": 1, "velocity/a": 2, "loss_scale": 3}
    assert variables.of_network(arrays) == {"a": 1}
    assert variables.of_network({**arrays, "average/a": 4, "average_updates": 5}) == {"a": 4}
