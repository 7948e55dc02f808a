"""What a step's batch costs before it is trained on: storage, cores, exchange within groups."""

import math
from dataclasses import dataclass

from ba_dist.planner import collectives
from ba_dist.planner.machine import Machine
from ba_dist.planner.workload import Workload
from ba_dist.rules.layout import Layout

_LEAST_THREADS = 4  # records that a rank reads at a time, where it has fewer cores
_SHARED = 2  # messages by which lanes of a node tell each other that a slot is full, and read
_MEASURED = 500 * 375 * 3  # bytes of the images that `input.decode` of a machine is measured with


@dataclass(frozen=True)
class Reading:
    """The input of a step.

    Args:
        storage: seconds in which the slowest reader gets its records, shared bandwidth and opens
            counted.
        cores: seconds in which the busiest rank's cores decode and augment.
        exchange: seconds of the exchange within a group.
        link: seconds for which the exchange keeps a node's link busy.
        readers: ranks that read.
        records: that all ranks read, also those that a node's page cache has.
        bytes_read: bytes that the filesystem gives, by all nodes.
        opens: files that all ranks open, where each record is a file.
        bytes_sent: bytes that ranks give others, each counted once, as a run counts them.
        node_share: share of a step's samples that one node reads.
    """

    storage: float
    cores: float
    exchange: float
    link: float
    readers: int
    records: int
    bytes_read: float
    opens: float
    bytes_sent: float
    node_share: float


def threads(cores: int) -> int:
    """Records that a rank with so many cores reads at a time."""
    return max(_LEAST_THREADS, cores)


def reading(work: Workload, machine: Machine, layout: Layout, io: str, exchange: str) -> Reading:
    """The input of a step in one of the modes.

    Args:
        work: what is read.
        machine: with what.
        layout: by whom.
        io: `replicate`, `broadcast` or `cooperative`.
        exchange: `encoded` or `decoded`.
    """
    node, size, b = machine.node, layout.group_size, layout.group_batch
    if size == 1:
        io = "replicate"
    cores = (
        _decodes(layout, node.ranks, io, exchange) * _decode_seconds(work, machine)
        + layout.instances_per_rank * machine.input.augment * work.instance_pixels
    ) / node.cores
    readers = layout.groups if io == "broadcast" else layout.world_size
    records = b * (layout.world_size if io == "replicate" else layout.groups)
    storage = bytes_read = share = 0.0
    opens = 0
    if work.stored:
        # Lanes of one node that read the same record find it in the page cache of the node.
        bytes_read = records * work.record / (min(size, node.ranks) if io == "replicate" else 1)
        of_a_node = bytes_read / min(-(-layout.world_size // node.ranks), readers)
        opens = 0 if work.shards else records
        share = min(1.0, of_a_node / work.record / layout.batch_size)
        # What the busiest lane reads, one record after the other in each of its threads.
        reads = math.ceil(b / size) if io == "cooperative" else b
        storage = max(
            reads * machine.storage.latency / threads(node.cores)
            + of_a_node / machine.storage.client,
            bytes_read / machine.storage.together,
            opens / machine.storage.opens,
        )
    seconds, link, sent = exchange_of(work, machine, layout, io, exchange)
    return Reading(storage, cores, seconds, link, readers, records, bytes_read, opens, sent, share)


def _decodes(layout: Layout, ranks: int, io: str, exchange: str) -> int:
    """Records that the busiest lane decodes of a step."""
    size, b = layout.group_size, layout.group_batch
    if io != "cooperative":
        return b
    if exchange == "decoded" or ranks % size == 0:  # on one node lanes always share samples
        return math.ceil(b / size)
    # Each node decodes all records of its group once. Where groups end inside of nodes, their
    # nodes may have different numbers of lanes, and every lane decodes all.
    return math.ceil(b / ranks) if size % ranks == 0 else b


def _decode_seconds(work: Workload, machine: Machine) -> float:
    """Of a core, for a record."""
    return machine.input.decode * work.decoded / _MEASURED if work.record else 0.0


def exchange_of(
    work: Workload, machine: Machine, layout: Layout, io: str, form: str
) -> tuple[float, float, float]:
    """(seconds, seconds of a node's link, bytes that ranks give others) of a step's exchange."""
    size, ranks, net = layout.group_size, machine.node.ranks, machine.network
    if io == "replicate" or size == 1:
        return 0.0, 0.0, 0.0
    inside = ranks % size == 0
    samples = layout.group_batch * work.decoded
    message = layout.group_batch * (work.record or work.decoded)
    if form == "decoded" or (inside and io == "cooperative"):
        message = samples
    if inside:  # lanes write into memory that all of them read
        return _shared(size, machine), 0.0, message * layout.groups
    whole = size % ranks == 0  # nodes have all of their ranks in one group
    if whole and (io, form) == ("cooperative", "encoded"):
        # Lanes at one seat of all nodes gather their part of the records; all seats do it at a
        # time, over one link. Then the lanes of a node share what they have decoded.
        nodes, shared = size // ranks, samples if ranks > 1 else 0
        seconds = collectives.allgather(message, nodes, net.latency, net.bandwidth)
        link = (nodes - 1) / nodes * message / net.bandwidth
        sent = (message + nodes * shared) * layout.groups
        return seconds + _shared(ranks, machine), link, sent
    # A node's link carries the group that it is in, or two where a group ends inside of the node.
    flows = 1 if whole else 2
    way = collectives.allgather if io == "cooperative" else collectives.broadcast
    seconds = way(message, size, net.latency, net.bandwidth / flows)
    link = flows * (size - 1) / size * message / net.bandwidth
    return seconds, link, message * layout.groups


def _shared(lanes: int, machine: Machine) -> float:
    """Seconds in which lanes of a node tell each other of the memory that they share."""
    return _SHARED * machine.network.inside_latency * math.ceil(math.log2(lanes))
