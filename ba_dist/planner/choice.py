"""The layout that a run should take on a machine, and why."""

from dataclasses import dataclass

from ba_dist.config import layout_of, override
from ba_dist.errors import LayoutError
from ba_dist.planner.machine import Machine
from ba_dist.planner.prediction import Prediction, Way, predict
from ba_dist.planner.workload import Workload
from ba_dist.rules.layout import Layout, group_sizes, microbatches

# The default first: where nothing is gained by another one, it is taken.
MODES = (
    ("cooperative", "decoded"),
    ("cooperative", "encoded"),
    ("broadcast", "encoded"),
    ("broadcast", "decoded"),
    ("replicate", "encoded"),
)
_WORTH = 0.01  # share of a step by which another way must be faster


@dataclass(frozen=True)
class Plan:
    """A row of the answer.

    Args:
        nodes: that were asked for.
        multiplicity: M.
        best: what it would take; None where no layout works.
        reason: why that one, or why none.
        notes: what a person should know of it.
    """

    nodes: int
    multiplicity: int
    best: Prediction | None
    reason: str
    notes: tuple[str, ...] = ()


def plan(work: Workload, machine: Machine, nodes: int) -> Plan:
    """Predicts every way to compute the run on so many nodes, and takes the fastest.

    Of those that are as fast (within 1 %), the one that asks the least of the filesystem; then the
    largest groups; then the default mode. What the configuration itself says (group size,
    microbatch, mode) is kept.

    Args:
        work: what is computed.
        machine: on what.
        nodes: of the job.
    """
    world, copies = nodes * machine.node.ranks, work.config.batch.multiplicity
    try:
        default = layout_of(work.config, world)
    except LayoutError as error:
        return Plan(nodes, copies, None, f"{error}")
    ways = [
        predict(work, machine, nodes, Way(layout, io, exchange, work.buckets))
        for layout in _layouts(work, machine, default)
        for io, exchange in _modes(work, layout)
    ]
    if not ways:
        return Plan(nodes, copies, None, _too_large(work, machine, default))
    fastest = min(way.seconds for way in ways)
    good = [way for way in ways if way.seconds <= fastest * (1 + _WORTH)]
    best = min(good, key=_asks)
    notes = tuple(note for note in [best.way.layout.notice()] if note)
    return Plan(nodes, copies, best, _why(best, ways, default), notes)


def _too_large(work: Workload, machine: Machine, default: Layout) -> str:
    """Why no microbatch fits into memory, or not the one that was asked for."""
    given, least = work.config.placement.microbatch, default.ghost_batch
    need = work.memory(default.instances_per_rank, given or least)
    smaller = [] if given in (None, least) else ["a smaller --microbatch"]
    recompute = [] if work.config.placement.recompute else ["--recompute"]
    return (
        f"a rank needs at least {need / 1e9:.3g} GB {'' if smaller else 'even '}with a microbatch"
        f" of {given or least}, and has {machine.node.memory / 1e9:.3g} GB;"
        f" {', '.join([*smaller, *recompute])}{', or ' * bool(smaller or recompute)}more ranks"
    )


def _asks(way: Prediction) -> tuple[float, ...]:
    """What is compared among ways that are as fast."""
    mode = MODES.index((way.way.io, way.way.exchange))
    size = way.way.layout.group_size
    return (way.input.bytes_read, way.input.opens, -size, mode, -way.way.layout.microbatch)


def _layouts(work: Workload, machine: Machine, default: Layout) -> list[Layout]:
    """Every group size that leaves the ghost batches as they are, each with what fits in memory."""
    given, batch = work.config.placement, work.config.batch
    sizes = group_sizes(default.world_size, batch.multiplicity)
    if given.group_size:
        sizes = [given.group_size]
    found = []
    for size in sizes:
        try:
            layout = layout_of(override(work.config, {"group_size": size}), default.world_size)
        except LayoutError:
            continue
        if layout.ghost_batch != default.ghost_batch:
            continue  # it would compute something else
        for microbatch in sorted(microbatches(layout.instances_per_rank, layout.ghost_batch))[::-1]:
            if given.microbatch and microbatch != given.microbatch:
                continue
            if work.memory(layout.instances_per_rank, microbatch) <= machine.node.memory:
                changes = {"group_size": size, "microbatch": microbatch}
                found.append(layout_of(override(work.config, changes), default.world_size))
                break
    return found


def _modes(work: Workload, layout: Layout) -> list[tuple[str, str]]:
    if layout.group_size == 1:
        return [MODES[0]]
    given = work.config.placement
    modes = list(MODES)
    if given.io != "cooperative":  # the default says nothing
        modes = [mode for mode in modes if mode[0] == given.io]
    if given.exchange != "auto":
        modes = [mode for mode in modes if mode[1] == given.exchange or mode[0] == "replicate"]
    return modes


def _why(best: Prediction, ways: list[Prediction], default: Layout) -> str:
    """What other groups, other modes and smaller microbatches would cost."""
    layout = best.way.layout
    said = []
    others = [w for w in ways if w.way.layout.group_size != layout.group_size]
    if layout.group_size == 1 and default.multiplicity > 1:
        said.append("each rank makes all copies of its samples itself")
    elif others:
        other = min(others, key=lambda w: w.seconds)
        said.append(f"groups of {other.way.layout.group_size}: {_compared(other, best)}")
    for io in ("cooperative", "broadcast", "replicate"):
        same = [w for w in ways if w.way.layout == layout and w.way.io == io]
        if io != best.way.io and same:
            other = min(same, key=lambda w: (w.seconds, w.input.bytes_read))
            said.append(f"{io}: {_compared(other, best)}")
    if layout.microbatches > 1 and default.microbatch != layout.microbatch:
        said.append(f"more than {layout.microbatch} instances at once do not fit in memory")
    return "; ".join(said) or "there is no other way"


def _compared(other: Prediction, best: Prediction) -> str:
    """`12 % slower, 4 times the bytes of storage`."""
    slower = other.seconds / best.seconds - 1
    parts = [f"{slower:.0%} slower" if slower > _WORTH else "as fast"]
    if best.input.bytes_read:
        ratio = other.input.bytes_read / best.input.bytes_read
        if ratio > 1.01:
            parts.append(f"{ratio:.3g} times the bytes of storage")
        elif ratio < 0.99:
            parts.append(f"{1 / ratio:.3g} times fewer bytes of storage")
    return ", ".join(parts)
