"""Threads that read and decode, or augment, many samples at a time."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")


class Workers:
    """A few threads that do the same work for many items.

    Args:
        threads: number of threads; with one, the calling thread does all the work.
    """

    def __init__(self, threads: int):
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, "worker") if threads > 1 else None

    def map(self, work: Callable[[T], S], items: list[T]) -> list[S]:
        """`[work(item) for item in items]`; raises what the first failing item raised."""
        if self._pool is None or len(items) < 2:
            return [work(item) for item in items]
        # Each thread gets one share: to hand over single items would cost more than the work.
        share = -(-len(items) // self.threads)
        shares = [items[i : i + share] for i in range(0, len(items), share)]
        try:
            parts = self._pool.map(lambda part: [work(item) for item in part], shares)
        except RuntimeError:  # Python is ending, and starts nothing in its pools any more
            return [work(item) for item in items]
        return [result for part in parts for result in part]

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()


@contextmanager
def workers(threads: int) -> Iterator[Workers]:
    """Workers that are closed at the end of the block."""
    pool = Workers(threads)
    try:
        yield pool
    finally:
        pool.close()
