"""Which microbatch of a step goes through the network: what layers cannot see in their input.

A layer of Keras gets activations and nothing else. Some layers of a training step need more: ghost
BatchNorm must move its statistics once a step and not once a microbatch, dropout takes its mask
from the keys of the instances, drop-path zeroes more as
training goes on, and a layer that keeps a state for each instance must find the rows, and know when
to begin anew. Where the backward pass computes a layer again (`models/recompute.py`), its state
must not move again.
The step says so here, around the forward pass, while the graph is built.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Microbatch:
    """One forward pass of a training step.

    Args:
        first: bool tensor, whether it is the first pass of the step.
        passes: number of passes in a step.
        start: integer (or tensor), which of the rank's instances is row 0.
        keys: uint64 tensor [n], the key of each instance; None where a script has none.
        manifold: (number of the layer, partners, weights) of manifold mixup; None where it is off.
        drop_path: tensor, the share of edges that are zeroed in this step; None where none are.
        again: whether the backward pass computes it a second time; what moved then stays.
        hashed_keys: graph → hash of `keys` there, which all layers with noise begin from.
        copy_keys: uint64 tensor [n], the key of each instance's copy in this step, the same for all
            instances of a copy; None where a script has none.
        ghost_batch: rows of a ghost batch: so many consecutive ones are of one copy.
        carry: tensor, 1 where a state goes on from the step before, 0 where it begins anew; None
            where states are always kept.
    """

    first: Any
    passes: int
    start: Any = 0
    keys: Any = None
    drop_path: Any = None
    manifold: Any = None
    again: bool = False
    hashed_keys: dict[Any, Any] = field(default_factory=dict)
    copy_keys: Any = None
    ghost_batch: int = 1
    carry: Any = None


_current: list[Microbatch] = []


@contextlib.contextmanager
def microbatch(
    first: Any, passes: int, *, start: Any = 0, keys: Any = None, **more: Any
) -> Iterator[Microbatch]:
    """Tells the layers that are called inside the block which microbatch they see.

    Args:
        first, passes, start, keys, more: the fields of `Microbatch`.
    """
    with enter(Microbatch(first, passes, start, keys, **more)) as entered:
        yield entered


@contextlib.contextmanager
def enter(moment: Microbatch) -> Iterator[Microbatch]:
    """Inside of the block it is the current one."""
    _current.append(moment)
    try:
        yield moment
    finally:
        _current.pop()


def current() -> Microbatch | None:
    """The microbatch whose forward pass is being built; None outside of a training step."""
    return _current[-1] if _current else None
