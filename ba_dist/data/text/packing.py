"""Sentence pairs side by side in rows of a fixed number of tokens."""

import numpy as np
import numpy.typing as npt

from ba_dist.rules.keys import combine

Int64s = npt.NDArray[np.int64]

_OPEN = 256  # rows that a pair is tried in: enough for 98 % full ones, in seconds for millions
_KEY = 0x7061636B  # any number that stays: the order of pairs is part of what a dataset is


def first_fit(lengths: Int64s, row_tokens: int) -> tuple[Int64s, Int64s]:
    """Puts each pair into the first open row that has room for it on both sides.

    Pairs come in a shuffled order that depends on their number alone, so that rows mix what lies
    together in the files. Of the open rows the oldest one is closed when there are too many.

    Args:
        lengths: int64 [pairs, 2], tokens of source and target, ends included.
        row_tokens: of a row, on each side.

    Returns:
        pairs: int64, the numbers of the pairs, row after row; those that are longer than a row are
            left out.
        ends: int64 [rows], where each row ends in `pairs`.
    """
    order = np.argsort(combine(_KEY, np.arange(len(lengths))), kind="stable")
    order = order[(lengths[order] <= row_tokens).all(1)]
    room: npt.NDArray[np.int64] = np.zeros((0, 2), np.int64)
    open_rows: list[list[int]] = []
    closed: list[list[int]] = []
    for pair in order.tolist():
        needed = lengths[pair]
        fits = (room >= needed).all(1)
        chosen = int(fits.argmax()) if len(fits) else 0
        if not len(fits) or not fits[chosen]:
            if len(open_rows) == _OPEN:
                closed.append(open_rows.pop(0))
                room = room[1:]
            chosen = len(open_rows)
            open_rows.append([])
            room = np.concatenate([room, [[row_tokens, row_tokens]]])
        open_rows[chosen].append(pair)
        room[chosen] -= needed
    rows = closed + open_rows
    pairs = np.array([pair for row in rows for pair in row], np.int64)
    return pairs, np.cumsum([len(row) for row in rows], dtype=np.int64)
