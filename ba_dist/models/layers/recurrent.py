"""An LSTM whose state goes on from step to step, with dropout of its recurrent weights.

    z_t = W·x_t + U·h_{t-1} + b          cut into i, f, g, o
    c_t = σ(f)·c_{t-1} + σ(i)·tanh(g)    h_t = σ(o)·tanh(c_t)

Shape suffixes: t tokens, n instances, k copies, s samples of a ghost batch, u units, z = 4·u.

Sources: Hochreiter and Schmidhuber 1997 in the form of Keras' LSTM; the dropout of U is DropConnect
as in Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models", section 2.
"""

import math
from typing import Any

import keras
import tensorflow as tf

from ba_dist.models.layers.dropout import kept
from ba_dist.models.layers.microbatch import Microbatch, current
from ba_dist.models.tags import ADAPT, DECAY, INSTANCE


@keras.saving.register_keras_serializable("ba_dist")
class CarriedLSTM(keras.layers.Layer):
    """The LSTM above; in training every instance goes on where its row ended in the step before.

    U is dropped once for a copy and a step: all samples of a copy see the same weights, each copy
    others. The mask follows from (seed, step, copy), and the state belongs to the row of the batch,
    so neither depends on ranks or microbatches. Evaluation begins each row at zero and drops
    nothing.

    Args:
        units: width of the state.
        instances: rows that this rank trains on in a step; each has a state.
        weight_drop: share of the recurrent weights that are zero in training.
        stream: names this layer's masks; two layers of a network need two names.

    Call: x float [n, t, …]; returns float [n, t, units].

    Raises:
        ValueError: in training, when weights are to be dropped and the step gave no keys of copies
            (a script's own loop must open `models.layers.microbatch.microbatch(...,
            copy_keys=keys)`).
    """

    tags = {
        "kernel": (DECAY, ADAPT),
        "recurrent_kernel": (DECAY, ADAPT),
        "hidden": (INSTANCE,),
        "cell": (INSTANCE,),
    }

    def __init__(
        self,
        units: int,
        instances: int = 1,
        weight_drop: float = 0.0,
        stream: str = "",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units, self.instances = units, instances
        self.weight_drop, self.stream = weight_drop, stream

    def build(self, input_shape: Any) -> None:
        """All weights begin uniform in ±1/√units, as PyTorch's LSTM and the source."""
        bound = 1 / math.sqrt(self.units)

        def weight(name: str, shape: tuple[int, ...]) -> Any:
            start = keras.initializers.RandomUniform(-bound, bound)
            return self.add_weight(shape=shape, initializer=start, name=name)

        def state(name: str) -> Any:
            shape = (self.instances, self.units)
            return self.add_weight(
                shape=shape,
                initializer="zeros",
                trainable=False,
                autocast=False,  # a variable, and no copy of it, in half precision as well
                name=name,
            )

        self.kernel = weight("kernel", (input_shape[-1], 4 * self.units))
        self.recurrent_kernel = weight("recurrent_kernel", (self.units, 4 * self.units))
        self.bias = weight("bias", (4 * self.units,))
        self.hidden, self.cell = state("hidden"), state("cell")

    def call(self, inputs: Any, training: bool = False) -> Any:
        now = current() if training else None
        x_tnz = self._from_inputs(inputs)
        recurrent, groups = self._recurrent_weights(now, training)
        dropped = groups is not None
        count = tf.shape(inputs)[0]
        hidden, cell = self._begin(now, inputs, count)
        if dropped:
            x_tnz, hidden, cell = (
                tf.reshape(x, tf.concat([tf.shape(x)[:-2], [groups, -1, x.shape[-1]]], 0))
                for x in (x_tnz, hidden, cell)
            )
        h_tnu, hidden, cell = recurrence(x_tnz, recurrent, hidden, cell)
        if dropped:
            h_tnu, hidden, cell = (
                tf.reshape(x, tf.concat([tf.shape(x)[:-3], [count, self.units]], 0))
                for x in (h_tnu, hidden, cell)
            )
        self._end(now, inputs, hidden, cell)
        outputs = tf.transpose(h_tnu, (1, 0, 2))
        outputs.set_shape((*inputs.shape[:2], self.units))
        return outputs

    def _from_inputs(self, inputs: Any) -> Any:
        """W·x + b of all tokens by one product of matrices, [t, n, z]."""
        x_tni = tf.transpose(inputs, (1, 0, 2))
        z = tf.matmul(tf.reshape(x_tni, (-1, inputs.shape[-1])), self.kernel) + self.bias
        sides = tf.shape(x_tni)
        return tf.reshape(z, (sides[0], sides[1], 4 * self.units))

    def _recurrent_weights(self, now: Microbatch | None, training: bool) -> tuple[Any, int | None]:
        """U [u, z]; or for each ghost batch its own, [k, u, z], and how many there are."""
        weights = tf.convert_to_tensor(self.recurrent_kernel)
        if not training or self.weight_drop == 0:
            return weights, None
        if now is None or now.copy_keys is None:
            raise ValueError(f"dropout {self.stream!r} needs the keys of the copies")
        keys = now.copy_keys[:: now.ghost_batch]
        mask = kept(keys, self.stream, weights.shape, self.weight_drop)
        scale = tf.constant(1 / (1 - self.weight_drop), weights.dtype)
        return weights * (tf.cast(mask, weights.dtype) * scale), keys.shape[0]

    def _begin(self, now: Microbatch | None, inputs: Any, count: Any) -> list[Any]:
        """The states [n, u] that the rows begin with."""
        zeros = tf.zeros((count, self.units), inputs.dtype)
        if now is None:
            return [zeros, zeros]
        rows = slice(now.start, now.start + inputs.shape[0])
        found = [tf.cast(state.value[rows], inputs.dtype) for state in (self.hidden, self.cell)]
        if now.carry is not None:
            found = [tf.where(now.carry > 0, state, zeros) for state in found]
        return found

    def _end(self, now: Microbatch | None, inputs: Any, *states: Any) -> None:
        """Keeps the states of the rows for the next step."""
        if now is None:
            return
        rows = slice(now.start, now.start + inputs.shape[0])
        for variable, state in zip((self.hidden, self.cell), states, strict=True):
            variable.value[rows].assign(tf.cast(state, variable.value.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        names = ("units", "instances", "weight_drop", "stream")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


# TensorFlow's decorator has no types.
@tf.custom_gradient  # type: ignore[untyped-decorator]
def recurrence(x: Any, weights: Any, hidden: Any, cell: Any) -> tuple[Any, Any]:
    """h_t and the last state of an LSTM, from what its inputs add to the gates.

    Its gradient is written out, because that of a loop would add to the gradient of U at every
    token: here that is one product of matrices for all tokens.

    Args:
        x: float [t, n, z], or [t, k, s, z] with weights for each of k.
        weights: U, float [u, z] or [k, u, z].
        hidden: h_0, float [n, u] or [k, s, u].
        cell: c_0, of the same shape.

    Returns:
        h_1 … h_t, float [t, …]; h_t; c_t.
    """
    tokens = tf.shape(x)[0]
    arrays = [tf.TensorArray(x.dtype, tokens, element_shape=s) for s in _shapes(x, cell)]

    def forward(t: Any, h: Any, c: Any, *kept: Any) -> Any:
        i, f, g, o = tf.split(x[t] + tf.matmul(h, weights), 4, -1)
        i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
        c = f * c + i * g
        h = o * tf.tanh(c)
        new = (tf.concat([i, f, g, o], -1), c, h)
        return [t + 1, h, c, *(a.write(t, value) for a, value in zip(kept, new, strict=True))]

    found = tf.while_loop(lambda t, *_: t < tokens, forward, [0, hidden, cell, *arrays])
    _, last_hidden, last_cell, *kept = found
    gates, cells, hiddens = (array.stack() for array in kept)

    def gradient(d_hiddens: Any, d_hidden: Any, d_cell: Any) -> Any:
        i, f, g, o = tf.split(gates, 4, -1)
        cells_before = tf.concat([cell[None], cells[:-1]], 0)
        squashed = tf.tanh(cells)
        # dz_t = [dc, dc, dc, dh] · these, where dc = dc_{t+1} + dh · to_cell.
        to_gates = tf.concat(
            [
                g * i * (1 - i),
                cells_before * f * (1 - f),
                i * (1 - tf.square(g)),
                squashed * o * (1 - o),
            ],
            -1,
        )
        to_cell = o * (1 - tf.square(squashed))

        def backward(t: Any, dh: Any, dc: Any, kept: Any) -> Any:
            dh = dh + d_hiddens[t]
            dc = dc + dh * to_cell[t]
            dz = tf.concat([dc, dc, dc, dh], -1) * to_gates[t]
            return [t - 1, tf.matmul(dz, weights, transpose_b=True), dc * f[t], kept.write(t, dz)]

        array = tf.TensorArray(x.dtype, tokens, element_shape=x.shape[1:])
        _, dh, dc, array = tf.while_loop(
            lambda t, *_: t >= 0, backward, [tokens - 1, d_hidden, d_cell, array]
        )
        d_x = array.stack()
        hiddens_before = tf.concat([hidden[None], hiddens[:-1]], 0)
        return d_x, _of_weights(hiddens_before, d_x), dh, dc

    return (hiddens, last_hidden, last_cell), gradient


def _of_weights(hiddens: Any, gates: Any) -> Any:
    """Σ over tokens and rows of hᵀ·dz, [u, z] or [k, u, z]."""
    if len(gates.shape) == 4:
        hiddens, gates = (tf.transpose(x, (1, 0, 2, 3)) for x in (hiddens, gates))
        hiddens, gates = (
            tf.reshape(x, tf.stack([tf.shape(x)[0], -1, tf.shape(x)[-1]])) for x in (hiddens, gates)
        )
    else:
        hiddens, gates = (tf.reshape(x, (-1, x.shape[-1])) for x in (hiddens, gates))
    return tf.matmul(hiddens, gates, transpose_a=True)


def _shapes(x: Any, cell: Any) -> list[Any]:
    """Static shapes of what is kept of a token: gates, cells, states."""
    return [x.shape[1:], cell.shape, cell.shape]
