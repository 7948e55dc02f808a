"""(number of samples, seed, epoch) → the spans of a text that each step of an epoch trains on.

A text of which N spans of `span` tokens are used is cut into B streams of S = N·span // B tokens.
Step t of the epoch takes tokens [c_t, c_{t+1}) of every stream, and row s of a batch is stream s,
so a network can go on with each row where the step before ended:

    stream s  │ step 0 │  step 1  │ step 2 │ …        0 = c_0 < c_1 < … < c_T = S,   T = N // B

The lengths are drawn anew in each epoch, so that an epoch's words are not always cut at the same
places. An epoch uses every token of every stream once, on any number of ranks.

Source: the lengths are those of Merity et al. 2018, "Regularizing and Optimizing LSTM Language
Models" (arXiv:1708.02182), section 5 (variable length backpropagation sequences), scaled so that
they fill a stream exactly.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ba_dist.rules.keys import Purpose, combine, uniforms
from ba_dist.rules.order import Shuffle

Int64s = npt.NDArray[np.int64]

# A sample id is start · _LENGTHS + length: it says which tokens are meant, whoever reads it.
_LENGTHS = 2**12
LONGEST_SPAN = 512
_HALVED = 0.05  # share of the steps whose length is about half
_DEVIATION = 1 / 14  # of a length, as a share of the span: 5 of 70 tokens
_MOST_DEVIATIONS = 2.0


class Streams:
    """The order of an epoch of a text: position → sample id, which names a span of the text.

    Position t·B + s is step t of stream s. The positions are 0 … T·B-1.

    Args:
        num_samples: N, spans of the text that are used; at least B.
        seed: the run's seed.
        epoch: the epoch, from 0.
        batch_size: B, streams.
        span: tokens of a step, about; up to `LONGEST_SPAN`.

    Example:
        >>> order = Streams(6, seed=0, epoch=0, batch_size=2, span=10)
        >>> start, length = located(order(np.arange(6)))
        >>> int(length.sum()), start[:2].tolist()
        (60, [0, 30])
    """

    def __init__(self, num_samples: int, seed: int, epoch: int, *, batch_size: int, span: int):
        if not 1 <= span <= LONGEST_SPAN:
            raise ValueError(f"span is {span}; it must be from 1 to {LONGEST_SPAN}")
        if num_samples < batch_size:
            raise ValueError(f"{num_samples} samples are fewer than {batch_size} streams")
        self._streams = batch_size
        self._stream_length = num_samples * span // batch_size
        self.cuts = cuts(self._stream_length, num_samples // batch_size, seed, epoch)

    def __call__(self, positions: npt.ArrayLike) -> Int64s:
        """The sample ids at these positions of the epoch; int64, same shape."""
        step, stream = np.divmod(np.asarray(positions, np.int64), self._streams)
        start = stream * self._stream_length + self.cuts[step]
        return start * _LENGTHS + (self.cuts[step + 1] - self.cuts[step])


def streams(batch_size: int, span: int) -> Shuffle:
    """The order of a text, as `order.shuffle` gives that of samples which are mixed."""

    def order(num_samples: int, seed: int, epoch: int) -> Streams:
        return Streams(num_samples, seed, epoch, batch_size=batch_size, span=span)

    return order


def located(sample_ids: npt.ArrayLike) -> tuple[Int64s, Int64s]:
    """(first token, number of tokens) of sample ids that `Streams` gave; int64, same shape."""
    start, length = np.divmod(np.asarray(sample_ids, np.int64), _LENGTHS)
    return start, length


def longest(span: int) -> int:
    """No step has more tokens than this: a length is at least a third of the mean, so scaling adds
    little, and less than twice where an epoch has so few steps that they do not fill a stream.
    """
    lowest = 0.5 - _MOST_DEVIATIONS * _DEVIATION
    return int(np.ceil(span * (1 + _MOST_DEVIATIONS * _DEVIATION) * 2 / lowest)) + 1


@lru_cache(maxsize=4)
def cuts(length: int, steps: int, seed: int, epoch: int) -> Int64s:
    """Where the steps of an epoch cut a stream: c_0 = 0 < … < c_T = length; int64 [T + 1].

        l_t = 1 or 1/2 (in 5 %), plus normal noise of deviation 1/14, at most 2 deviations
        c_t = round(length · (l_0 + … + l_{t-1}) / Σ l)

    Args:
        length: S, tokens of a stream; at least T.
        steps: T.
        seed: the run's seed.
        epoch: the epoch, from 0.
    """
    numbers = uniforms(combine(Purpose.CUTS, seed, epoch, np.arange(steps)), 3)
    # Box and Muller's transform of two of the three numbers.
    normal = np.sqrt(-2 * np.log(1 - numbers[:, 1])) * np.cos(2 * np.pi * numbers[:, 2])
    noise = _DEVIATION * np.clip(normal, -_MOST_DEVIATIONS, _MOST_DEVIATIONS)
    # In whole millionths, whose sums are exact: a sum of floats may differ between machines.
    lengths = np.round(1e6 * (np.where(numbers[:, 0] < _HALVED, 0.5, 1.0) + noise))
    ends = np.cumsum(lengths.astype(np.int64)).tolist()
    # Python's integers, which do not overflow.
    found = np.array([0, *((2 * length * end + ends[-1]) // (2 * ends[-1]) for end in ends)])
    # A span of few tokens could round to none.
    first = np.arange(steps + 1)
    found = np.minimum(np.maximum.accumulate(found - first) + first, length - first[::-1])
    found.setflags(write=False)  # it is kept for others
    return found
