"""The gradient of all copies, made as long as that of one copy is on average.

    g ← ρ·g    ρ = (1/M · Σ_m ‖g_m‖) / ‖g‖    g_m = 1/B · Σ_n ∇ℓ(w, T_m(x_n), y_n)

g is the mean of all g_m and so not longer than they are on average: ρ ≥ 1. ρ is measured every few
updates and kept in between.

g_m is of all B samples: a sum over the ranks of one lane, which hold the same copies of different
samples. It goes by mpi4py: Horovod's messages are over the whole world. Copy after copy, so that
one gradient at a time needs memory.

Source: the authors' code, convNet.pytorch, trainer.py (`adapt_grad_norm`).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ba_dist.comm import Comm
from ba_dist.rules.layout import Layout


class NormMatching:
    """ρ and how it is measured. Made on all ranks together.

    `slots` is everything that it remembers, name → variable: it is saved with the weights.

    Args:
        layout: of the ranks.
        comm: the world.
    """

    def __init__(self, layout: Layout, comm: Comm):
        self._layout = layout
        self._world = comm.world
        self._lane = comm.lane(layout)
        self._ratio = tf.Variable(1.0, trainable=False, dtype=tf.float64)
        self.slots = {"norm_ratio": self._ratio}

    def norm_of_copies(self, sums: Iterable[tuple[npt.NDArray[Any], float]]) -> float:
        """1/M · Σ_m ‖g_m‖, the same bits on every rank; collective over the world.

        Args:
            sums: of each copy of this rank, over its own samples: the gradient [parameters] of the
                summed loss, and the weight that the loss is a sum of.
        """
        norms = []
        for gradient, weight in sums:
            whole = self._lane.sum(np.append(gradient, gradient.dtype.type(weight)))
            norms.append(np.linalg.norm(whole[:-1]) / whole[-1])
        # The ranks of the first group hold every copy once.
        rows = self._world.gather_all(np.array(norms, np.float64))[: self._layout.group_size]
        return float(rows.mean())

    def ratio(self, norm_of_copies: Any, norm: Any, finite: Any) -> Any:
        """ρ, measured anew where there is something to measure it from; inside of the graph.

        Args:
            norm_of_copies: float64 scalar, 0 where it was not measured in this step.
            norm: ‖g‖.
            finite: whether ‖g‖ is.

        Returns:
            A scalar of the dtype of `norm`.
        """
        measured = norm_of_copies / tf.cast(norm, tf.float64)
        usable = finite & (norm_of_copies > 0) & tf.math.is_finite(measured)
        ratio = self._ratio.assign(tf.where(usable, measured, self._ratio))
        return tf.cast(ratio, norm.dtype)
