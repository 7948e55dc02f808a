"""The Transformer against plain numpy in float64; packed rows against pairs that stand alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ba_dist import models
from ba_dist.models import tags, transformer
from ba_dist.models.layers.dropout import InstanceDropout
from ba_dist.models.layers.microbatch import microbatch
from ba_dist.models.precision import set_precision
from ba_dist.models.tags import ADAPT, DECAY, carries
from ba_dist.models.transformer import Size, Transformer

TINY = Size(width=12, heads=3, layers=2, hidden=20, dropout=0.3)
VOCABULARY = 17
BEGIN, END = 2, 3


@pytest.fixture(scope="module")
def model():
    """A tiny one in float64 whose biases and norms are not what they begin as."""
    set_precision("fp64")
    keras.utils.set_random_seed(3)
    made = Transformer(TINY, VOCABULARY)
    made.build()
    tags.tag(made)
    generator = np.random.default_rng(4)
    for variable in made.variables:
        variable.assign(variable.numpy() + 0.2 * generator.normal(size=variable.shape))
    yield made
    set_precision("fp32")


# --- the plain one: one sentence pair at a time, no masks but "not later" -------------------------


class Plain:
    def __init__(self, model):
        self.values = {v.path.removeprefix("transformer/"): v.numpy() for v in model.variables}
        self.used = set()

    def get(self, name):
        self.used.add(name)
        return self.values[name]

    def embedded(self, tokens):
        rows = self.get("embedding/embeddings")[tokens] * np.sqrt(TINY.width)
        for position, row in enumerate(rows):
            for i in range(TINY.width // 2):
                angle = position / 10_000 ** (2 * i / TINY.width)
                row[2 * i] += np.sin(angle)
                row[2 * i + 1] += np.cos(angle)
        return rows

    def attention(self, name, x, memory, causal=False):
        q, k, v = (
            a @ self.get(f"{name}/{part}/kernel")
            for a, part in ((x, "query"), (memory, "key"), (memory, "value"))
        )
        size, heads = TINY.width // TINY.heads, []
        for h in range(TINY.heads):
            part = slice(h * size, (h + 1) * size)
            found = np.empty((len(x), size))
            for i in range(len(x)):
                seen = slice(0, i + 1) if causal else slice(None)
                scores = k[seen, part] @ q[i, part] / np.sqrt(size)
                weights = np.exp(scores - scores.max())
                found[i] = weights / weights.sum() @ v[seen, part]
            heads.append(found)
        return np.concatenate(heads, 1) @ self.get(f"{name}/joined/kernel")

    def norm(self, name, x):
        centred = x - x.mean(1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6)
        return scaled * self.get(f"{name}/norm/gamma") + self.get(f"{name}/norm/beta")

    def forward(self, name, x):
        inner, outer = f"{name}/hidden", f"{name}/outer"
        hidden = np.maximum(x @ self.get(f"{inner}/kernel") + self.get(f"{inner}/bias"), 0)
        return hidden @ self.get(f"{outer}/kernel") + self.get(f"{outer}/bias")

    def logits(self, source, shifted):
        memory = self.embedded(source)
        for i in range(TINY.layers):
            at = f"encoder{i}"
            y = self.attention(f"{at}/attention", memory, memory)
            memory = self.norm(f"{at}/attended", memory + y)
            memory = self.norm(f"{at}/forwarded", memory + self.forward(f"{at}/forward", memory))
        x = self.embedded(shifted)
        for i in range(TINY.layers):
            at = f"decoder{i}"
            y = self.attention(f"{at}/attention", x, x, causal=True)
            x = self.norm(f"{at}/attended", x + y)
            x = self.norm(f"{at}/crossed", x + self.attention(f"{at}/crossing", x, memory))
            x = self.norm(f"{at}/forwarded", x + self.forward(f"{at}/forward", x))
        return x @ self.get("embedding/embeddings").T


PAIRS = [(5, 3), (1, 4), (6, 2), (2, 1)]  # tokens of source and target


def pairs():
    generator = np.random.default_rng(5)
    return [
        [np.append(generator.integers(4, VOCABULARY, n - 1), END) for n in sizes] for sizes in PAIRS
    ]


def packed(rows, width):
    """Rows of pairs as the network takes them."""
    names = ("source", "source_segments", "shifted", "target_segments")
    inputs = {name: np.zeros((len(rows), width), np.int32) for name in names}
    for r, row in enumerate(rows):
        at = [0, 0]
        for number, (source, target) in enumerate(row, 1):
            shifted = np.append(BEGIN, target[:-1])
            for i, (name, tokens) in enumerate((("source", source), ("shifted", shifted))):
                part = slice(at[i], at[i] + len(tokens))
                inputs[name][r, part] = tokens
                inputs[("source_segments", "target_segments")[i]][r, part] = number
                at[i] += len(tokens)
    return {name: tf.constant(array) for name, array in inputs.items()}


def test_packed_rows_give_what_plain_pairs_give(model):
    """Encoder, decoder, masks and positions, with padding behind the pairs."""
    plain = Plain(model)
    rows = [pairs()[:3], pairs()[3:] + pairs()[1:2]]
    found = model(packed(rows, 16), training=False).numpy()
    for row, logits in zip(rows, found, strict=True):
        at = 0
        for source, target in row:
            expected = plain.logits(source, np.append(BEGIN, target[:-1]))
            np.testing.assert_allclose(logits[at : at + len(target)], expected, rtol=1e-9)
            at += len(target)
    assert plain.used == set(plain.values)
    assert np.isfinite(found).all()


def test_step_by_step_gives_what_whole_rows_give(model):
    """Keys and values that are kept are those of a decoder that sees all."""
    source = np.zeros((4, 9), np.int32)
    targets = np.zeros((4, 7), np.int32)
    for i, (s, t) in enumerate(pairs()):
        source[i, : len(s)] = s
        targets[i, : len(t)] = np.append(BEGIN, t[:-1])
    kept = model.begin(tf.constant(source), 7)
    steps = []
    for at in range(4):
        logits, kept = model.step(tf.constant(targets[:, at]), at, kept, tf.constant(source))
        steps.append(logits.numpy())
    whole = model(packed([[pair] for pair in pairs()], 9), training=False).numpy()
    for i, (_, target) in enumerate(pairs()):
        for at in range(len(target)):
            np.testing.assert_allclose(steps[at][i], whole[i, at], rtol=1e-9)


def test_no_pair_sees_another_one_or_what_comes_later(model):
    """Another token changes what follows it in its own pair, and nothing else that counts."""
    inputs = packed([pairs()[:3]], 16)
    found = model(inputs, training=False).numpy()[0]
    for changed in range(9):
        other = inputs["shifted"].numpy()
        other[0, changed] = 4 + (other[0, changed] - 3) % (VOCABULARY - 4)
        new = model({**inputs, "shifted": tf.constant(other)}, training=False).numpy()[0]
        moved = set(np.flatnonzero((new != found)[:9].any(1)).tolist())
        ends = np.cumsum([n for _, n in PAIRS[:3]])
        end = int(ends[np.searchsorted(ends, changed, side="right")])
        assert moved == set(range(changed, end))


def test_copies_have_masks_of_their_own_and_none_without_dropout(model):
    inputs = packed([pairs()[:3]] * 3, 16)
    keys = tf.constant([7, 8, 7], tf.uint64)
    with microbatch(True, 1, keys=keys):
        found = model(inputs, training=True).numpy()[:, :9]
    plain = model(inputs, training=False).numpy()[:, :9]
    np.testing.assert_array_equal(found[0], found[2])
    differs = [(found[0] != other).any(1).mean() for other in (found[1], plain[0])]
    assert differs == [1, 1]
    calm = Transformer(Size(12, 3, 2, 20, dropout=0.0), VOCABULARY)
    calm.build()
    for mine, other in zip(calm.variables, model.variables, strict=True):
        mine.assign(other)
    with microbatch(True, 1, keys=keys):
        np.testing.assert_allclose(calm(inputs, training=True)[:, :9], plain, rtol=1e-12)


def test_every_place_of_dropout_has_a_name_of_its_own(model):
    """Two places with one name would have the same masks."""
    streams = [x.stream for x in tags.layers(model) if isinstance(x, InstanceDropout)]
    layers = TINY.layers
    assert len(streams) == len(set(streams)) == 2 + layers * (2 + 2) + layers * (3 + 3)


@pytest.mark.parametrize(("name", "vocabulary"), [("base", 37_000), ("small", 4_000)])
def test_the_number_of_parameters(name, vocabulary):
    """Exactly what the sizes say; the paper's table 3 has 65 million for base, rounded."""
    size = transformer.SIZES[name]
    d, hidden = size.width, size.hidden
    attention, norm = 4 * d * d, 2 * d
    forward = 2 * d * hidden + hidden + d
    encoder, decoder = attention + forward + 2 * norm, 2 * attention + forward + 3 * norm
    expected = vocabulary * d + size.layers * (encoder + decoder)
    made = models.build(f"transformer-{name}", norm=None, vocabulary=vocabulary, row_tokens=8)
    assert sum(int(np.prod(v.shape)) for v in made.trainable_variables) == expected
    if name == "base":
        assert expected == 63_045_632
        assert expected == pytest.approx(65e6, rel=0.05)


def test_initial_weights_and_tags():
    """Embeddings normal with deviation 1/√width, kernels even with variance 2 / (in + out)."""
    made = models.build("transformer-small", norm=None, vocabulary=4000, row_tokens=8)
    for variable in made.variables:
        values, path = variable.numpy(), variable.path
        kernel = path.endswith(("kernel", "embeddings"))
        assert carries(variable, DECAY) == carries(variable, ADAPT) == kernel, path
        if path.endswith("embeddings"):
            assert values.std() == pytest.approx(128**-0.5, rel=0.01)
        elif kernel:
            assert np.abs(values).max() <= np.sqrt(6 / sum(values.shape))
            assert values.std() == pytest.approx(np.sqrt(2 / sum(values.shape)), rel=0.03)
        else:
            assert set(values) == {1.0 if path.endswith("gamma") else 0.0}


def test_half_precision_computes_and_keeps_float32_weights():
    set_precision("bf16")
    try:
        made = models.build("transformer-small", norm=None, vocabulary=50, row_tokens=8)
        logits = made(packed([pairs()[:3]], 16), training=False)
        assert logits.dtype == tf.bfloat16 and made.variables[0].dtype == "float32"
        assert np.isfinite(tf.cast(logits, tf.float32).numpy()).all()
        source = tf.constant([[5, 6, END]])
        step, _ = made.step(tf.constant([BEGIN]), 0, made.begin(source, 3), source)
        assert np.isfinite(tf.cast(step, tf.float32).numpy()).all()
    finally:
        set_precision("fp32")
