"""The LSTM of language models in float64: against Keras' and plain numpy; its masks and states."""

import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist import models
from ba_dist.models.layers.microbatch import microbatch
from ba_dist.models.layers.recurrent import CarriedLSTM
from ba_dist.models.layers.words import WordEmbedding
from ba_dist.models.precision import set_precision
from ba_dist.models.tags import DECAY, INSTANCE, carries
from ba_dist.rules.keys import Purpose, augmentation_keys, combine, copy_keys

ROWS, TOKENS, WIDTH, UNITS = 6, 7, 5, 4
NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(ROWS, TOKENS, WIDTH))
# Three samples in two copies: rows of a ghost batch have one copy.
KEYS = augmentation_keys(1, 0, np.tile(np.arange(3), 2), np.repeat([0, 1], 3))
COPY_KEYS = copy_keys(1, 9, np.repeat([0, 1], 3))


@pytest.fixture(autouse=True)
def double_precision():
    set_precision("fp64")
    keras.utils.set_random_seed(0)
    yield
    set_precision("fp32")


def lstm(weight_drop=0.0):
    layer = CarriedLSTM(UNITS, ROWS, weight_drop, stream="here", name="lstm")
    layer.build((None, None, WIDTH))
    return layer


def step(keys=KEYS, copies=COPY_KEYS, start=0, ghost=3, carry=1.0):
    """One forward pass of a training step."""
    return microbatch(
        True,
        1,
        start=start,
        keys=tf.constant(keys),
        copy_keys=tf.constant(copies),
        ghost_batch=ghost,
        carry=tf.constant(carry),
    )


def plain(x, kernel, recurrent, bias, hidden, cell):
    """The formula, token by token and row by row; `recurrent` [n, u, 4u]."""

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    found = []
    for t in range(x.shape[1]):
        z = x[:, t] @ kernel + np.einsum("nu,nuz->nz", hidden, recurrent) + bias
        i, f, g, o = np.split(z, 4, 1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        found.append(hidden)
    return np.stack(found, 1), hidden, cell


def masks(keys, stream, shape, rate):
    """The four 16-bit numbers of each hash, made with numpy."""
    size = int(np.prod(shape))
    j = np.arange(-(-size // 4))
    hashes = combine(Purpose.NOISE, keys[:, None], zlib.crc32(stream.encode()), j[None])
    quarters = [(hashes >> np.uint64(16 * q)) & np.uint64(0xFFFF) for q in range(4)]
    numbers = np.stack(quarters, -1).reshape(len(keys), -1)[:, :size]
    return (numbers >= round(rate * 2**16)).reshape(-1, *shape)


def test_it_is_that_of_keras_with_its_gradients():
    layer, x = lstm(), tf.constant(X)
    theirs = keras.layers.LSTM(UNITS, return_sequences=True)
    theirs.build((None, None, WIDTH))
    theirs.set_weights([layer.kernel, layer.recurrent_kernel, layer.bias])
    given = tf.constant(NUMBERS.normal(size=(ROWS, TOKENS, UNITS)))
    found = []
    for network, weights in ((layer, [layer.kernel, layer.recurrent_kernel, layer.bias]),
                             (theirs, theirs.trainable_variables)):  # fmt: skip
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = network(x, training=True)
            loss = tf.reduce_sum(given * y)
        found.append([y, *tape.gradient(loss, [x, *(v.value for v in weights)])])
    for mine, other in zip(*found, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-11, atol=1e-13)
    assert np.abs(found[0][3]).max() > 0.1


def test_masks_and_states_are_those_of_numpy():
    """Weights dropped copy by copy, a state that goes on, and gradients through the masks."""
    layer = lstm(weight_drop=0.5)
    recurrent = layer.recurrent_kernel.numpy()
    kept = masks(copy_keys(1, 9, [0, 1]), "here", recurrent.shape, 0.5)
    assert 0.3 < kept.mean() < 0.7 and (kept[0] != kept[1]).any()
    dropped = np.repeat(recurrent * kept * 2, 3, 0)
    state = [np.zeros((ROWS, UNITS))] * 2
    for _ in range(3):
        with step():
            found = layer(tf.constant(X), training=True)
        expected, *state = plain(X, layer.kernel.numpy(), dropped, layer.bias.numpy(), *state)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-14)
    for variable, value in zip((layer.hidden, layer.cell), state, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-12, atol=1e-14)


def test_the_gradient_of_dropped_weights_is_that_of_differences():
    layer = lstm(weight_drop=0.5)

    def loss():
        with step(carry=0.0):
            return tf.reduce_sum(tf.square(layer(tf.constant(X), training=True)))

    with tf.GradientTape() as tape:
        value = loss()
    weights = layer.recurrent_kernel.value
    found, old = tape.gradient(value, weights).numpy(), weights.numpy()
    for place in np.ndindex(old.shape):
        sides = []
        for move in (1e-5, -1e-5):
            moved = np.array(old)
            moved[place] += move
            weights.assign(moved)
            sides.append(loss().numpy())
        assert found[place] == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-8)
    assert (found == 0).mean() > 0.1, "a weight that both copies have dropped has no gradient"


def test_a_state_begins_anew_where_the_step_says_so():
    layer = lstm()
    with step(carry=0.0):
        first = layer(tf.constant(X), training=True).numpy()
    with step():
        on = layer(tf.constant(X), training=True).numpy()
    assert np.abs(on - first).max() > 1e-3
    layer.hidden.assign(layer.hidden * np.nan)  # even what is no number
    with step(carry=0.0):
        np.testing.assert_array_equal(layer(tf.constant(X), training=True), first)


def test_evaluation_drops_nothing_and_knows_no_state():
    layer = lstm(weight_drop=0.5)
    with step():
        layer(tf.constant(X), training=True)
    kernel, recurrent, bias = (v.numpy() for v in layer.trainable_variables)
    zeros, whole = np.zeros((ROWS, UNITS)), np.repeat(recurrent[None], ROWS, 0)
    expected = plain(X, kernel, whole, bias, zeros, zeros)[0]
    np.testing.assert_allclose(layer(tf.constant(X)), expected, rtol=1e-12, atol=1e-14)


def test_without_keys_of_copies_weights_are_not_dropped_silently():
    with microbatch(True, 1, keys=tf.constant(KEYS)), pytest.raises(ValueError, match="'here'"):
        lstm(weight_drop=0.5)(tf.constant(X), training=True)


def network(size="lstm-small", instances=ROWS, words=50):
    keras.utils.set_random_seed(0)
    return models.build(size, None, instances=instances, words=words)


TEXT = np.random.default_rng(3).integers(0, 50, (3, TOKENS)).astype(np.int32)
TEXTS = tf.constant(np.tile(TEXT, (2, 1)))


def test_a_microbatch_is_its_rows_of_the_whole():
    """Also one with half of the rows of a ghost batch, as a group of fewer samples has them."""
    with step():
        whole = [y.numpy() for y in network()(TEXTS, training=True)]
    for size, ghost in ((3, 3), (1, 1)):
        model = network()
        for first in range(0, ROWS, size):
            rows = slice(first, first + size)
            with step(KEYS[rows], COPY_KEYS[rows], first, ghost):
                found = model(TEXTS[rows], training=True)
            for one, other in zip(found, whole, strict=True):
                np.testing.assert_allclose(one, other[rows], rtol=1e-12, atol=1e-14)


def test_copies_of_a_sample_differ_and_the_mask_is_the_same_for_all_tokens():
    with step():
        _, dropped, raw = network()(TEXTS, training=True)
    assert np.abs(raw[:3] - raw[3:]).min(axis=(1, 2)).max() > 0
    ratio = dropped.numpy() / raw.numpy()
    assert np.unique(ratio.round(9)).tolist() == [0, 1.25]
    assert (ratio.round(9) == ratio.round(9)[:, :1]).all()
    with step(carry=0.0):
        one = network()(TEXTS, training=True)[0].numpy()
    with step(copies=copy_keys(1, 10, np.repeat([0, 1], 3)), carry=0.0):
        other = network()(TEXTS, training=True)[0].numpy()
    assert np.abs(one - other).max() > 1e-6, "another step drops other weights"


def test_a_dropped_word_is_dropped_wherever_it_stands():
    layer = WordEmbedding(8, 3, rate=0.5, stream="words")
    layer.build((None, None))
    words = np.tile(np.arange(8), (ROWS, 2)).astype(np.int32)
    with step():
        found = layer(tf.constant(words), training=True).numpy()
    numbers = combine(Purpose.NOISE, KEYS[:, None], zlib.crc32(b"words"), np.arange(8)[None])
    kept = (numbers >> np.uint64(40)).astype(np.float64) * 2.0**-24 >= 0.5
    expected = layer.embeddings.numpy()[words] * np.tile(kept, (1, 2))[:, :, None] * 2
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    assert len(np.unique(kept, axis=0)) == ROWS


def test_words_go_in_and_out_by_one_matrix():
    model = network()
    embedding = model.get_layer("words")
    x = NUMBERS.normal(size=(2, 3, 128))
    expected = x @ embedding.embeddings.numpy().T + embedding.output_bias.numpy()
    np.testing.assert_allclose(embedding(tf.constant(x), reverse=True), expected, rtol=1e-12)
    paths = [v.path for v in model.variables]
    assert len(paths) == len(set(paths)), "a checkpoint knows variables by their names"
    tagged = {v.path for v in model.variables if carries(v, INSTANCE)}
    assert tagged == {f"lstm{i}/{name}" for i in (0, 1) for name in ("hidden", "cell")}
    decayed = {v.path.split("/")[-1] for v in model.variables if carries(v, DECAY)}
    assert decayed == {"embeddings", "kernel", "recurrent_kernel"}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near(precision):
    """Logits and gradients are of single precision, and all is what it is in float64, nearly."""
    double = network()
    expected = double(TEXTS, training=False)[0]
    set_precision(precision)
    model = network()
    model.set_weights(double.get_weights())
    with tf.GradientTape() as tape, step():
        logits, _, raw = model(TEXTS, training=True)
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(TEXTS, logits))
    assert (logits.dtype, raw.dtype) == (tf.float32, tf.as_dtype(model.compute_dtype))
    weights = [v.value for v in model.trainable_variables]
    for gradient in map(tf.convert_to_tensor, tape.gradient(loss, weights)):
        assert gradient.dtype == tf.float32 and np.isfinite(gradient).all()
    found = model(TEXTS, training=False)[0]
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_the_published_network_has_24_million_parameters():
    """10,000 words of PTB. By hand: E and its biases, then W, U and b of each LSTM."""
    set_precision("fp32")
    model = network("lstm", 1, 10_000)
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    sizes = ((400, 1150), (1150, 1150), (1150, 400))
    assert count == 10_000 * 401 + sum(4 * out * (into + out + 1) for into, out in sizes)
    assert round(count / 1e6, 1) * 1e6 == models.NETWORKS["lstm"].parameters
    start = model.get_layer("lstm1").recurrent_kernel.numpy()
    assert 0.99 / np.sqrt(1150) < np.abs(start).max() <= 1 / np.sqrt(1150)
    words = model.get_layer("words").embeddings.numpy()
    assert 0.099 < np.abs(words).max() <= 0.1
