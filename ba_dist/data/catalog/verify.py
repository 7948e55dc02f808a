"""Reads and decodes every sample of a source, and says which are corrupt."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from ba_dist.data.sources import Source
from ba_dist.errors import CorruptRecord

_SHARE = 64  # samples that a thread takes at a time


def verify(source: Source, threads: int, title: str, report: Callable[[str], None]) -> int:
    """Reads and decodes every sample once, with a progress bar on a terminal.

    Args:
        source: the samples.
        threads: number of samples that are read at a time.
        title: of the progress bar.
        report: called with a line for each corrupt sample, in order: where it is and why.

    Returns:
        The number of corrupt samples.
    """
    corrupt = 0
    shares = [
        range(first, min(first + _SHARE, len(source))) for first in range(0, len(source), _SHARE)
    ]
    pool = ThreadPoolExecutor(threads, "verify")
    try:
        with tqdm(total=len(source), desc=title, unit="sample", disable=None) as bar:
            for share, lines in zip(
                shares, pool.map(lambda ids: _problems(source, ids), shares), strict=True
            ):
                for line in lines:
                    bar.clear()
                    report(line)
                corrupt += len(lines)
                bar.update(len(share))
    finally:
        pool.shutdown(cancel_futures=True)
    return corrupt


def _problems(source: Source, ids: range) -> list[str]:
    lines = []
    for sample_id in ids:
        try:
            source.decode(source.read(sample_id))
        except CorruptRecord as error:
            lines.append(f"{source.where(sample_id)}: {error}")
    return lines
