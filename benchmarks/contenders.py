"""The contenders of `group_io.py`, and how they take turns on the ranks of one group."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rivals
from ranks import my_threads, patient_barrier
from ready import Ready

from ba_dist import comm as ba_comm
from ba_dist.comm import Channel, Comm
from ba_dist.config import Data
from ba_dist.data.group.choice import choose
from ba_dist.data.group.group_reader import GroupReader
from ba_dist.data.group.record_exchange import ReadMode
from ba_dist.data.sources import Source, Workers, workers
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import GroupSampler

OURS = {
    "replicate": ReadMode("replicate"),
    "broadcast": ReadMode("broadcast", "encoded"),
    "broadcast-decoded": ReadMode("broadcast", "decoded"),
    "cooperative-encoded": ReadMode("cooperative", "encoded"),
    "cooperative": ReadMode("cooperative", "decoded"),
    "auto": ReadMode("cooperative", "auto"),
}
# Those that a step can be fed with; the service has one copy for all ranks.
READY = ("replicate", "broadcast", "cooperative", "tf.data", "streaming")
RIVALS = ("tf.data", "tf.data-service", "streaming")
# Where there is nothing to exchange, all modes of ours are one.
ALONE = ("replicate", "cooperative", *RIVALS)
WARM_UP = 4  # batches at the start of a turn; no contender keeps more than these ready
_PREFETCH = 2
_FOREVER = 2**40


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        contenders: names of `OURS` and `RIVALS`.
        batch_size: photographs that a group reads in a step.
        rounds: turns of each contender.
        seconds: length of a turn, about.
        data_dir: of the photographs.
        streaming_python: interpreter that has mosaicml-streaming, "" for none.
        ready: for instances ready for the network, not decoded photographs.
    """

    contenders: Sequence[str]
    batch_size: int
    rounds: int
    seconds: float
    data_dir: Path
    streaming_python: str = ""
    ready: bool = False


class Reading:
    """ba_dist's reader in one mode, the same one in all turns.

    It is allowed to read just the batches of the turn, so that it rests when others have theirs.

    Args:
        reader: ba_dist's reader in one mode.
    """

    def __init__(self, reader: GroupReader):
        self._reader = reader
        self.batches = iter(self._reader)
        self._owed = 0

    def __call__(self, count: int) -> list[float]:
        for _ in range(self._owed):
            self._reader.advance()
        self._owed = _PREFETCH
        times = rivals.arrivals(self._advancing(), count - _PREFETCH)
        return times + rivals.arrivals(self.batches, _PREFETCH)

    def _advancing(self) -> Iterator[Any]:
        for batch in self.batches:
            self._reader.advance()
            yield batch

    def close(self) -> None:
        """Ends its thread."""
        self._reader.close()


def reader_of(
    mode: ReadMode,
    source: Source,
    channel: Channel,
    layout: Layout,
    pool: Workers,
    *,
    sharing: int,
) -> GroupReader:
    """ba_dist's reader in one mode.

    Args:
        mode: how the group reads.
        source: the photographs.
        channel: the group, on a communicator of its own.
        layout: of the ranks, which are all one group.
        pool: threads that read and decode.
        sharing: ranks on this node.
    """
    return GroupReader(
        source,
        GroupSampler(len(source), 0, layout, 0),
        channel,
        mode,
        first=0,
        last=_FOREVER,
        prefetch=_PREFETCH,
        workers=pool,
        sharing=sharing,
    )


def mode_of(name: str, source: Source, comm: Comm, layout: Layout, pool: Workers) -> ReadMode:
    """How a contender of ours reads; `auto` measures it now, collective over the world."""
    mode = OURS[name]
    if name != "auto":
        return mode
    chosen = choose(mode, source, comm, layout, pool)
    if comm.rank == 0 and chosen.milliseconds:
        print(chosen.text(), flush=True)
    return ReadMode(mode.io, chosen.way)


def open_contenders(
    settings: Settings, comm: Comm, source: Source, pool: Workers
) -> dict[str, Any]:
    """All contenders, on every rank; collective over the world."""
    threads, batch = my_threads(comm), settings.batch_size
    layout = Layout(comm.world_size, comm.world_size, batch)
    opened: dict[str, Any] = {}
    for name in settings.contenders:
        if name in OURS:
            mode, channel = mode_of(name, source, comm, layout, pool), comm.group(layout)
            reader = reader_of(mode, source, channel, layout, pool, sharing=comm.node.size)
            ready = (reader, _PREFETCH, source, layout, channel, pool)
            opened[name] = Ready(*ready) if settings.ready else Reading(reader)
        elif name == "tf.data":
            opened[name] = rivals.TfData(settings.data_dir, batch, threads, settings.ready)
        elif name == "tf.data-service":
            # Its worker may use as many threads as all ranks together.
            everyone = threads * comm.world_size
            opened[name] = rivals.Service(comm, settings.data_dir, batch, everyone)
        else:
            folder, python = rivals.mds_folder(settings.data_dir), settings.streaming_python
            opened[name] = rivals.Streaming(
                python, comm, folder, batch, threads, ready=settings.ready
            )
    return opened


def rate(times: Sequence[float], batch_size: int) -> float:
    """Images per second of a turn, without its first batches."""
    return batch_size * (len(times) - WARM_UP) / (times[-1] - times[WARM_UP - 1])


def take_turns(
    contenders: dict[str, Any], comm: Comm, settings: Settings
) -> dict[str, list[float]]:
    """Name → images per second and rank in each round: the mean of what all ranks measured."""

    def turn(name: str, batches: int) -> float:
        patient_barrier()
        found = rate(contenders[name](batches), settings.batch_size)
        patient_barrier()
        return float(comm.sum(found)[0]) / comm.world_size

    # A first round, which is not counted, tells how many batches fill a turn.
    guesses = {name: turn(name, WARM_UP + 4) for name in contenders}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(settings.rounds):
        for name, guess in guesses.items():
            batches = round(settings.seconds * guess / settings.batch_size)
            rates[name].append(turn(name, WARM_UP + max(4, batches)))
    return rates


def measure_group(settings: Settings, comm: Comm) -> dict[str, list[float]]:
    """Name → rates in each round, on the ranks that were started as one group."""
    from ba_dist.data.catalog import open_dataset

    source = open_dataset(Data("pictures", f"{settings.data_dir}"), comm).train
    with workers(my_threads(comm)) as pool:
        contenders = open_contenders(settings, comm, source, pool)
        rates = take_turns(contenders, comm, settings)
        # Not in a finally: to close is collective, and a rank that has failed is elsewhere.
        for contender in contenders.values():
            contender.close()
        return rates


def join() -> Comm:
    """Joins the group, with TensorFlow kept to this rank's cores."""
    comm = ba_comm.start()
    threads = my_threads(comm)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return comm
