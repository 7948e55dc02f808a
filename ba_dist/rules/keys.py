"""Keys for orders and augmentations, and random numbers that are drawn from keys.

All of it is integer arithmetic on uint64, hence the same on every machine.

Source: the hash is the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

Uint64s = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


class Purpose(IntEnum):
    """What a key is for, so that an epoch's order and its augmentations are independent.

    A new purpose gets a new number; the others keep theirs.
    """

    ORDER = 1
    AUGMENT = 2
    STREAM = 3
    BLOCKS = 4
    WINDOW = 5
    SHIFT = 6
    SUBSET = 7
    NOISE = 8
    CUTS = 9
    COPY = 10
    LAYER = 11
    EVALUATION = 12
    PROBE = 13
    ANALYSIS = 14


def hash64(values: npt.ArrayLike) -> Uint64s:
    """SplitMix64's bijection of uint64; every input bit changes about half of the output bits."""
    x = np.array(values, dtype=np.uint64)
    with np.errstate(over="ignore"):
        x += _GOLDEN
        x ^= x >> np.uint64(30)
        x *= _MULTIPLIER_1
        x ^= x >> np.uint64(27)
        x *= _MULTIPLIER_2
        x ^= x >> np.uint64(31)
    return x


def combine(*parts: npt.ArrayLike) -> Uint64s:
    """Hashes integers (arrays broadcast) to uint64 keys; the order of the parts matters."""
    key: Uint64s = np.zeros((), np.uint64)
    for part in parts:
        key = hash64(key ^ hash64(np.asarray(part).astype(np.uint64)))
    return key


def augmentation_keys(
    seed: int, epoch: int, sample_ids: npt.ArrayLike, copies: npt.ArrayLike
) -> Uint64s:
    """The key of each instance; ids and copies broadcast against each other.

    Args:
        seed: the run's seed.
        epoch: the epoch, from 0.
        sample_ids: integers.
        copies: copy indices m in 0 … M-1.

    Returns:
        uint64 keys of the broadcast shape.
    """
    return combine(Purpose.AUGMENT, seed, epoch, sample_ids, copies)


def evaluation_keys(seed: int, sample_ids: npt.ArrayLike, copies: npt.ArrayLike) -> Uint64s:
    """The key of each augmented copy in an evaluation; ids and copies broadcast.

    Args:
        seed: the run's seed.
        sample_ids: integers.
        copies: copy indices from 0.

    Returns:
        uint64 keys of the broadcast shape.
    """
    return combine(Purpose.EVALUATION, seed, sample_ids, copies)


def analysis_keys(seed: int, sample_ids: npt.ArrayLike, copies: npt.ArrayLike) -> Uint64s:
    """The key of each augmented copy that is only looked at; ids and copies broadcast.

    Args:
        seed: of the analysis.
        sample_ids: integers.
        copies: copy indices from 0.

    Returns:
        uint64 keys of the broadcast shape.
    """
    return combine(Purpose.ANALYSIS, seed, sample_ids, copies)


def copy_keys(seed: int, step: int, copies: npt.ArrayLike) -> Uint64s:
    """The key of a copy in a step, which is the same for all samples.

    For what is drawn once for a copy and not once for an instance: a mask over weights.

    Args:
        seed: the run's seed.
        step: since the start of training, from 0.
        copies: copy indices m in 0 … M-1.

    Returns:
        uint64, the shape of `copies`.
    """
    return combine(Purpose.COPY, seed, step, copies)


def uniforms(keys: Uint64s, count: int, stream: int = 0) -> npt.NDArray[np.float64]:
    """Random numbers in [0, 1) drawn from keys alone.

    Args:
        keys: uint64 [n].
        count: how many numbers of each key.
        stream: number of the use, so that two augmentations never share their numbers.

    Returns:
        float64 [n, count], multiples of 2^-53.
    """
    counters = np.arange(count, dtype=np.uint64) + (np.uint64(stream) << np.uint64(32))
    bits = combine(Purpose.STREAM, np.asarray(keys)[:, None], counters[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(keys: Uint64s, low: int, high: npt.ArrayLike, stream: int) -> npt.NDArray[np.int64]:
    """Integers in low … high, both included, drawn from keys.

    Args:
        keys: uint64 [n].
        low: the smallest integer.
        high: the largest integer, one for all or one for each key.
        stream: number of the use, as in `uniforms`.

    Returns:
        int64 [n].
    """
    span = np.asarray(high) - low + 1
    return low + np.floor(uniforms(keys, 1, stream)[:, 0] * span).astype(np.int64)


def generator(key: np.uint64, stream: int) -> np.random.Generator:
    """Numpy's random numbers for one instance, from its key alone.

    The bits are PCG64's, which numpy never changes. What numpy makes of them (`normal`, `choice`)
    may differ between versions of numpy; ranks and layouts do not matter.

    Args:
        key: of the instance.
        stream: number of the use, as in `uniforms`.
    """
    seed = combine(Purpose.STREAM, key, np.uint64(stream) << np.uint64(32))
    return np.random.Generator(np.random.PCG64(int(seed)))
