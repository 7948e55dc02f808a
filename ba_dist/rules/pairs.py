"""Random pairs of samples: two of one class, and two of different classes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from ba_dist.errors import ConfigError
from ba_dist.rules.keys import Purpose
from ba_dist.rules.order import Permutation

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Sample ids; entry i of each array belongs to pair i.

    Args:
        x: int64 [n].
        y: int64 [n], another sample of the class of x.
        z: int64 [n].
        w: int64 [n], a sample of another class than z.
    """

    x: Int64s
    y: Int64s
    z: Int64s
    w: Int64s


def choose_pairs(label: Callable[[int], int], samples: int, count: int, seed: int) -> Pairs:
    """Draws pairs from (seed, labels) alone.

    All x and y are distinct samples, and so are all z and w. Samples are looked at in a random
    order until every pair is complete, so that no list of all labels is needed.

    Args:
        label: sample id → its class; asked once for each sample that is looked at.
        samples: N.
        count: n, pairs of each kind.
        seed: of the draw.

    Raises:
        ConfigError: when the samples do not hold so many pairs.
    """
    x, y = _of_one_class(label, _order(samples, seed, 0), count)
    z, w = _of_two_classes(label, _order(samples, seed, 1), count)
    if len(z) < count or min(y, default=0) < 0:
        there = min(len(z), sum(other >= 0 for other in y))
        raise ConfigError(
            f"--pairs {count}: {samples} training samples hold only {there} pairs of the same class"
            " and of different classes that were drawn; use fewer pairs, or a run with more samples"
        )
    return Pairs(*(np.array(ids, np.int64) for ids in (x, y, z, w)))


def _order(samples: int, seed: int, number: int) -> Iterator[int]:
    permuted = Permutation(samples, seed, number, Purpose.PROBE)
    return (int(permuted(position)) for position in range(samples))


def _of_one_class(
    label: Callable[[int], int], order: Iterator[int], count: int
) -> tuple[list[int], list[int]]:
    """(all x, their y; -1 where there was none): the next sample of the class of an x is its y."""
    x = list(islice(order, count))
    lacking: dict[int, list[int]] = {}
    for pair, sample in enumerate(x):
        lacking.setdefault(label(sample), []).append(pair)
    y = [-1] * count
    for sample in order:
        if not lacking:
            break
        found = label(sample)
        if found in lacking:
            y[lacking[found].pop(0)] = sample
            if not lacking[found]:
                del lacking[found]
    return x, y


def _of_two_classes(
    label: Callable[[int], int], order: Iterator[int], count: int
) -> tuple[list[int], list[int]]:
    """(all z, their w): the next sample of another class than z is its w."""
    z: list[int] = []
    w: list[int] = []
    while len(w) < count and (first := next(order, None)) is not None:
        own = label(first)
        other = next((sample for sample in order if label(sample) != own), None)
        if other is None:
            break
        z.append(first)
        w.append(other)
    return z, w
