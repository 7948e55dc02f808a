"""Dropout by the key of an instance: the copies of a sample differ by their masks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist.models.layers.dropout import InstanceDropout, InstanceDropPath, uniforms
from ba_dist.models.layers.microbatch import microbatch
from ba_dist.rules.keys import Purpose, augmentation_keys, combine

KEYS = augmentation_keys(3, 1, np.repeat(np.arange(50), 4), np.tile(np.arange(4), 50))


def dropped(layer, x, keys):
    with microbatch(True, 1, keys=tf.constant(keys)):
        return layer(tf.constant(x), training=True).numpy()


def test_numbers_are_those_of_the_keys():
    """The same hash as numpy's, made in the graph of TensorFlow."""
    import zlib

    found = tf.function(lambda keys: uniforms(keys, "here", (3, 5)))(tf.constant(KEYS)).numpy()
    stream = zlib.crc32(b"here")
    bits = combine(Purpose.NOISE, KEYS[:, None], stream, np.arange(15)[None])
    expected = (bits >> np.uint64(40)).astype(np.float64) * 2.0**-24
    np.testing.assert_array_equal(found.reshape(200, 15), expected)
    assert found.shape == (200, 3, 5) and found.min() >= 0 and found.max() < 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_so_many_are_zero_and_the_mean_stays(dtype, rate):
    layer = InstanceDropout(rate, "here", dtype=dtype)
    found = dropped(layer, np.ones((200, 100), dtype), KEYS)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.unique(found), [0, 1 / (1 - rate)], rtol=1e-6)
    # 20,000 numbers: five deviations of their mean.
    assert abs((found == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / 20_000)


def test_copies_samples_and_layers_have_masks_of_their_own():
    masks = dropped(InstanceDropout(0.5, "here"), np.ones((200, 64), np.float32), KEYS)
    assert len(np.unique(masks, axis=0)) == 200
    others = dropped(InstanceDropout(0.5, "there"), np.ones((200, 64), np.float32), KEYS)
    assert abs((masks == others).mean() - 0.5) < 0.05


def test_a_mask_does_not_depend_on_the_rows_around_it():
    layer, x = InstanceDropout(0.5, "here"), np.ones((200, 8, 3), np.float32)
    whole = dropped(layer, x, KEYS)
    parts = [dropped(layer, x[i : i + 40], KEYS[i : i + 40]) for i in range(0, 200, 40)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    alone = dropped(layer, x[7:8], KEYS[7:8])
    np.testing.assert_array_equal(alone, whole[7:8])


def test_evaluation_and_rate_zero_change_nothing():
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_array_equal(InstanceDropout(0.5, "here")(x, training=False), x)
    np.testing.assert_array_equal(InstanceDropout(0.0, "here")(x, training=True), x)


def test_training_without_keys_is_refused():
    with pytest.raises(ValueError, match="'here' needs the keys"):
        InstanceDropout(0.5, "here")(tf.ones((4, 3)), training=True)


def test_it_can_be_saved_with_a_model():
    layer = InstanceDropout(0.25, "here")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert (again.rate, again.stream) == (0.25, "here")


# --- whole paths ----------------------------------------------------------------------------------


def path_dropped(stream, x, keys, rate=0.3):
    with microbatch(True, 1, keys=tf.constant(keys), drop_path=tf.constant(rate)):
        return InstanceDropPath(stream, dtype=x.dtype)(tf.constant(x), training=True).numpy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_path_is_there_or_not_for_all_of_an_instance(dtype):
    found = path_dropped("here", np.ones((200, 3, 3, 2), dtype), KEYS)
    assert found.dtype == dtype and (np.ptp(found, axis=(1, 2, 3)) == 0).all()
    np.testing.assert_allclose(np.unique(found), [0, 1 / 0.7], rtol=1e-6)
    assert abs((found[:, 0, 0, 0] == 0).mean() - 0.3) < 5 * np.sqrt(0.21 / 200)


def test_paths_are_dropped_by_the_keys_of_instances_and_by_layer():
    x = np.ones((200, 1), np.float32)
    whole = path_dropped("here", x, KEYS)
    np.testing.assert_array_equal(path_dropped("here", x[40:90], KEYS[40:90]), whole[40:90])
    copies = whole.reshape(50, 4)
    assert (copies.min(1) < copies.max(1)).mean() > 0.5, "copies are dropped together"
    assert not np.array_equal(path_dropped("there", x, KEYS), whole)


def test_paths_stay_where_the_step_drops_none_and_in_evaluation():
    x, layer = np.ones((200, 3), np.float32), InstanceDropPath("here")
    np.testing.assert_array_equal(path_dropped("here", x, KEYS, 0.0), x)
    np.testing.assert_array_equal(layer(x, training=True), x)
    with microbatch(True, 1, keys=tf.constant(KEYS), drop_path=tf.constant(0.9)):
        np.testing.assert_array_equal(layer(x, training=False), x)
    with (
        microbatch(True, 1, drop_path=tf.constant(0.9)),
        pytest.raises(ValueError, match="'here' needs the keys"),
    ):
        layer(x, training=True)
    assert keras.layers.deserialize(keras.layers.serialize(layer)).stream == "here"
