"""(seed, epoch, step, group) → sample ids.

An epoch's order is a keyed bijection of 0 … N-1, so a rank computes just the ids it needs: O(1)
memory for any N. Everything is integer arithmetic on uint64, hence the same on every machine.

Source: the generalised Feistel cipher of Black and Rogaway, "Ciphers with Arbitrary Finite
Domains" (CT-RSA 2002), method 3.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from ba_dist.errors import CorruptRecord
from ba_dist.rules.keys import Purpose, Uint64s, combine, hash64
from ba_dist.rules.layout import Layout, steps_per_epoch

MAX_SAMPLES = 2**40
# Fewer leave the orders of 5 or 6 samples measurably uneven (chi-square over all N! of them).
_ROUNDS = 16


class Permutation:
    """The order of the samples in an epoch: a bijection of 0 … N-1 that needs no table.

    Args:
        num_samples: N, from 1 to 2^40.
        seed: the run's seed.
        epoch: the epoch, from 0.
        purpose: separates orders that have the same seed and epoch.

    Example:
        >>> sorted(Permutation(5, seed=1, epoch=0)(np.arange(5)))
        [0, 1, 2, 3, 4]
    """

    def __init__(self, num_samples: int, seed: int, epoch: int, purpose: Purpose = Purpose.ORDER):
        if not 1 <= num_samples <= MAX_SAMPLES:
            raise ValueError(f"num_samples is {num_samples}; it must be from 1 to 2^40")
        self.num_samples = num_samples
        self._rows = math.isqrt(num_samples - 1) + 1
        self._columns = -(-num_samples // self._rows)
        self._keys = combine(purpose, seed, epoch, np.arange(_ROUNDS))

    def __call__(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The sample ids at these positions of the epoch.

        Args:
            positions: integers in 0 … N-1, any shape.

        Returns:
            int64, same shape.
        """
        x = np.asarray(positions).astype(np.uint64)
        if x.size and x.max() >= self.num_samples:
            raise ValueError(f"position {x.max()} is outside 0 … {self.num_samples - 1}")
        x = self._encipher(x.reshape(-1))
        # The grid has up to `rows` cells more than N. A position that lands on one of those is
        # enciphered again until it lands below N.
        while (outside := np.flatnonzero(x >= self.num_samples)).size:
            x[outside] = self._encipher(x[outside])
        return x.astype(np.int64).reshape(np.shape(positions))

    def _encipher(self, x: Uint64s) -> Uint64s:
        rows, columns = np.uint64(self._rows), np.uint64(self._columns)
        row, column = np.divmod(x, columns)
        for r, key in enumerate(self._keys):
            if r % 2 == 0:
                row = (row + hash64(column ^ key) % rows) % rows
            else:
                column = (column + hash64(row ^ key) % columns) % columns
        return row * columns + column


class BlockShuffle:
    """An order that keeps reads near each other: blocks of consecutive samples are permuted.

    The samples, beginning at a random one, are cut into blocks, and the blocks are permuted. Then
    the samples of each window of `window` blocks are permuted. Samples after the last whole block
    are part of the last window. Like `Permutation` it is a bijection of 0 … N-1 without a table.

    Args:
        num_samples: N, from 1 to 2^40.
        seed: the run's seed.
        epoch: the epoch, from 0.
        block: number of consecutive samples in a block.
        window: number of blocks in a window.

    Example:
        >>> sorted(BlockShuffle(5, seed=1, epoch=0, block=2, window=2)(np.arange(5)))
        [0, 1, 2, 3, 4]
    """

    def __init__(self, num_samples: int, seed: int, epoch: int, block: int, window: int):
        self.num_samples = num_samples
        self._block, self._window = block, block * window
        self._seed, self._epoch = seed, epoch
        self._whole = num_samples // block
        self._blocks = Permutation(max(1, self._whole), seed, epoch, Purpose.BLOCKS)
        self._shift = int(combine(Purpose.SHIFT, seed, epoch)) % num_samples
        # The last window also takes the samples that do not fill another window.
        self._windows = max(1, self._whole // window)

    def __call__(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The sample ids at these positions of the epoch.

        Args:
            positions: integers in 0 … N-1, any shape.

        Returns:
            int64, same shape.
        """
        flat = np.asarray(positions, np.int64).reshape(-1)
        if flat.size and flat.max() >= self.num_samples:
            raise ValueError(f"position {flat.max()} is outside 0 … {self.num_samples - 1}")
        windows = np.minimum(flat // self._window, self._windows - 1)
        mixed = np.empty_like(flat)
        for window in np.unique(windows):
            inside = windows == window
            mixed[inside] = self._permute(int(window), flat[inside])
        block, offset = np.divmod(mixed, self._block)
        in_block = block < self._whole
        ids = mixed.copy()
        ids[in_block] = self._blocks(block[in_block]) * self._block + offset[in_block]
        return ((ids + self._shift) % self.num_samples).reshape(np.shape(positions))

    def _permute(self, window: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        first = window * self._window
        last = self.num_samples if window == self._windows - 1 else first + self._window
        key = int(combine(self._seed, window)) % 2**63
        return first + Permutation(last - first, key, self._epoch, Purpose.WINDOW)(
            positions - first
        )


def subset_ids(positions: npt.ArrayLike, count: int, num_samples: int) -> npt.NDArray[np.int64]:
    """The samples of an even share: one of each of `count` equal parts of the order of all N.

    Part i is [i·N//count, (i+1)·N//count), and a fixed hash of i chooses one of its samples. So
    each class gets its share where samples are sorted by class, and also where classes repeat with
    the length of a part, which a fixed step would not give. The ids ascend; `count` = N is the
    identity.

    Args:
        positions: integers in 0 … count-1, any shape.
        count: from 1 to N.
        num_samples: N, up to 2^40.

    Returns:
        int64, same shape.
    """
    i = np.asarray(positions, np.int64)
    begin, end = _part_begin(i, count, num_samples), _part_begin(i + 1, count, num_samples)
    return begin + (combine(Purpose.SUBSET, i) % (end - begin).astype(np.uint64)).astype(np.int64)


def _part_begin(i: npt.NDArray[np.int64], count: int, num_samples: int) -> npt.NDArray[np.int64]:
    """i·N // count, exact where the product has more than 64 bits."""
    quotient, remainder = divmod(num_samples, count)
    high, low = np.divmod(i, 2**20)
    whole, rest = np.divmod(high * remainder, count)
    return i * quotient + whole * 2**20 + (rest * 2**20 + low * remainder) // count


def step_positions(
    step_in_epoch: int, group: int, batch_size: int, group_batch: int
) -> npt.NDArray[np.int64]:
    """The positions in the epoch's order that a group trains on in a step: b consecutive ones."""
    first = step_in_epoch * batch_size + group * group_batch
    return np.arange(first, first + group_batch)


# (num_samples, seed, epoch) → positions in the epoch → sample ids
Shuffle = Callable[[int, int, int], Callable[[npt.ArrayLike], npt.NDArray[np.int64]]]


def shuffle(kind: str, block: int, window: int) -> Shuffle:
    """The order for `--shuffle full` or `block`; `block` and `window` are those of BlockShuffle."""
    return partial(BlockShuffle, block=block, window=window) if kind == "block" else Permutation


class GroupSampler:
    """Step → the epoch and the sample ids of one group; several threads may call it at a time.

    It keeps no state between calls, because the reading thread may already be in the next epoch
    while the gathering thread replaces a corrupt sample of this one.

    Args:
        num_samples: N.
        seed: the run's seed.
        layout: of the ranks.
        group: number of the group, from 0.
        order: makes the order of an epoch.
    """

    def __init__(
        self,
        num_samples: int,
        seed: int,
        layout: Layout,
        group: int,
        *,
        order: Shuffle = Permutation,
    ):
        self.steps_per_epoch = steps_per_epoch(num_samples, layout.batch_size)
        self._num_samples, self._seed, self._shuffle = num_samples, seed, order
        self._layout, self._group = layout, group

    def __call__(self, step: int) -> tuple[int, npt.NDArray[np.int64]]:
        """The epoch, and int64 [b] sample ids."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        order = self._shuffle(self._num_samples, self._seed, epoch)
        layout = self._layout
        positions = step_positions(
            step_in_epoch, self._group, layout.batch_size, layout.group_batch
        )
        return epoch, order(positions)

    def later(self, step: int, steps: int) -> npt.NDArray[np.int64]:
        """The samples that can replace those of a step: of the same epoch, `steps` steps later.

        After the last step of the epoch comes its first. So the samples of a step stay distinct,
        whichever are replaced, and the replacement does not depend on the layout.

        Raises:
            CorruptRecord: when the epoch has no other step left.
        """
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if steps >= self.steps_per_epoch:
            raise CorruptRecord(
                f"no sample can take the place of a corrupt one: an epoch has only"
                f" {self.steps_per_epoch} steps"
            )
        return self(epoch * self.steps_per_epoch + (step_in_epoch + steps) % self.steps_per_epoch)[
            1
        ]
