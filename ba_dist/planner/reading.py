"""What a step's batch costs before it is trained on: storage, cores, exchange within groups."""

import math
from dataclasses import dataclass

from ba_dist.planner import collectives
from ba_dist.planner.machine import Machine
from ba_dist.planner.workload import Workload
from ba_dist.rules.layout import Layout

_LEAST_THREADS = 4  # records that a rank reads at a time, where it has fewer cores
_SHARED = 2  # messages by which lanes of a node tell each other that a slot is full, and read


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
        bytes_read: bytes that the filesystem gives, by all nodes.
        opens: files that all ranks open, where each record is a file.
        bytes_sent: bytes that all ranks receive of each other.
        node_share: share of a step's samples that one node reads.
    """

    storage: float
    cores: float
    exchange: float
    link: float
    readers: int
    bytes_read: float
    opens: float
    bytes_sent: float
    node_share: float

    @property
    def seconds(self) -> float:
        """Of the slowest of the stages, which work side by side."""
        return max(self.storage, self.cores, self.exchange)


def reading(work: Workload, machine: Machine, layout: Layout, io: str, exchange: str) -> Reading:
    """The input of a step in one of the modes.

    Args:
        work: what is read.
        machine: with what.
        layout: by whom.
        io: `replicate`, `broadcast` or `cooperative`.
        exchange: `encoded` or `decoded`.
    """
    node, size = machine.node, layout.group_size
    b, whole = layout.group_batch, math.ceil(layout.group_batch / size)
    alone = io == "replicate" or size == 1
    # What the busiest lane reads and decodes of a step.
    reads = b if alone or io == "broadcast" else whole
    decodes = whole if not alone and (io, exchange) == ("cooperative", "decoded") else b
    scale = work.decoded / (400 * 350 * 3)  # decoding was measured with such images
    cores = (
        decodes * machine.input.decode * (scale if work.stored else 0.0)
        + layout.instances_per_rank * machine.input.augment * work.instance_pixels
    ) / node.cores
    readers = layout.groups if io == "broadcast" and size > 1 else layout.world_size
    nodes = -(-layout.world_size // node.ranks)
    if not work.stored:
        sent = exchange_of(work, machine, layout, alone, exchange)
        return Reading(0.0, cores, sent[0], sent[1], readers, 0.0, 0.0, sent[2], 0.0)
    # Lanes of one node that read the same record find it in the page cache of the node.
    sharing = min(size, node.ranks) if alone and size > 1 else 1
    records = reads * readers if alone or io == "broadcast" else b * layout.groups
    bytes_read = records * work.record / sharing
    opens = 0 if work.shards else records
    of_a_node = bytes_read / min(nodes, readers)
    threads = max(_LEAST_THREADS, node.cores)
    storage = max(
        reads * machine.storage.latency / threads + of_a_node / machine.storage.client,
        bytes_read / machine.storage.together,
        opens / machine.storage.opens,
    )
    sent = exchange_of(work, machine, layout, alone, exchange, io)
    share = of_a_node / work.record / layout.batch_size
    return Reading(
        storage, cores, sent[0], sent[1], readers, bytes_read, opens, sent[2], min(1.0, share)
    )


def exchange_of(
    work: Workload, machine: Machine, layout: Layout, alone: bool, form: str, io: str = "broadcast"
) -> tuple[float, float, float]:
    """(seconds, seconds of a node's link, bytes that all ranks receive) of a step's exchange."""
    size, net = layout.group_size, machine.network
    if alone or size == 1:
        return 0.0, 0.0, 0.0
    message = layout.group_batch * (work.decoded if form == "decoded" else work.record)
    received = (size - 1) * message * layout.groups
    if io == "cooperative":
        received = (size - 1) / size * message * layout.world_size
    inside = size <= machine.node.ranks and machine.node.ranks % size == 0
    if inside and form == "decoded":  # lanes decode into memory that all of them read
        return _SHARED * net.inside_latency * math.ceil(math.log2(size)), 0.0, received
    # A node's link carries the group that it is in, or two where a group ends inside of the node.
    flows = 1 if inside or size % machine.node.ranks == 0 else 2
    latency = net.inside_latency if inside else net.latency
    bandwidth = net.inside_bandwidth if inside else net.bandwidth / flows
    way = collectives.allgather if io == "cooperative" else collectives.broadcast
    seconds = way(message, size, latency, bandwidth)
    link = 0.0 if inside else flows * (size - 1) / size * message / net.bandwidth
    return seconds, link, received
