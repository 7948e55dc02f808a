"""Which gradients travel together, while the backward pass still computes the others."""

from collections.abc import Sequence


def buckets(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Consecutive variables that are sent as one message, in the order of the backward pass.

    The backward pass comes to the last variables first, so they fill the first bucket. A bucket is
    closed before a variable that would make it larger than the limit. No variable is cut: all of
    its gradient is there at once.

    Args:
        sizes: bytes of the gradient of each variable, in the order of the network.
        limit: bytes that a bucket of several variables holds at most; 0 puts all into one.

    Returns:
        The positions of the variables of each bucket, each in the order of the network. The first
        bucket is the first to be ready. At least one bucket, which is empty without variables.
    """
    made: list[list[int]] = [[]]
    filled = 0
    for position in reversed(range(len(sizes))):
        if limit and made[-1] and filled + sizes[position] > limit:
            made.append([])
            filled = 0
        made[-1].insert(0, position)
        filled += sizes[position]
    return made
