"""The time of a step, and what follows from it. docs/planning.md derives it."""

import math
from dataclasses import dataclass

from ba_dist.errors import ConfigError
from ba_dist.planner import collectives, failures, noise
from ba_dist.planner.machine import Machine, StepTime
from ba_dist.planner.reading import Reading, reading
from ba_dist.planner.workload import Workload
from ba_dist.recipes.about import MULTIPLY_ADDS
from ba_dist.rules.layout import Layout


@dataclass(frozen=True)
class Way:
    """Where a step is computed and how its batch is read: nothing of it changes the result.

    Args:
        layout: of the ranks.
        io: how a group reads.
        exchange: `encoded` or `decoded`, what it exchanges.
        buckets: pieces in which the gradient is summed, while the backward pass goes on.
    """

    layout: Layout
    io: str
    exchange: str
    buckets: int = 1


@dataclass(frozen=True)
class Prediction:
    """What a run is predicted to cost.

    Args:
        way: that was predicted.
        nodes: of the job.
        seconds: of a step, in the mean.
        deviation: relative deviation from step to step: two of three lie within it.
        parts: seconds of a step by what they are spent on; input is what training waits for it.
        input: stages of the input.
        bound: the part that a faster machine would have to shorten first.
        memory: bytes of a rank, at least.
        steps: of the run.
        opens: files that the filesystem opens in the whole run.
        bytes_read: bytes that it gives in the whole run, what nodes keep of it not read again.
        checkpoint_every: steps between two checkpoints that cost the least.
        expected: seconds of the run with failures, restarts and those checkpoints.
    """

    way: Way
    nodes: int
    seconds: float
    deviation: float
    parts: dict[str, float]
    input: Reading
    bound: str
    memory: float
    steps: int
    opens: float
    bytes_read: float
    checkpoint_every: int
    expected: float

    @property
    def steps_per_second(self) -> float:
        """1 / seconds."""
        return 1 / self.seconds

    @property
    def instances_per_second(self) -> float:
        """Of all ranks."""
        layout = self.way.layout
        return layout.batch_size * layout.multiplicity / self.seconds

    @property
    def hours(self) -> float:
        """Of the run's steps, without evaluation and failures."""
        return self.steps * self.seconds / 3600

    @property
    def node_hours(self) -> float:
        """The same, on all nodes."""
        return self.hours * self.nodes


def step_time(work: Workload, machine: Machine) -> tuple[StepTime, list[str]]:
    """(t(n) of the network, what had to be assumed for it).

    A network that the machine has no line for: that of another one, whose seconds an instance are
    multiplied by the ratio of multiply-adds. Seconds a microbatch stay: they are what starting the
    operations takes.

    Raises:
        ConfigError: where multiply-adds are not known, or the machine has no fp32.
    """
    name, precision = work.config.model.model, work.config.run.precision
    notes, factor = [], work.scale
    lines = machine.step_times.get(name)
    if lines is None:
        known = next((n for n in machine.step_times if n in MULTIPLY_ADDS), None)
        if known is None or name not in MULTIPLY_ADDS:
            raise ConfigError(
                f"the machine has no step time of {name}, only of"
                f" {', '.join(machine.step_times)}, and multiply-adds of one of them are not known"
            )
        lines, ratio = machine.step_times[known], MULTIPLY_ADDS[name] / MULTIPLY_ADDS[known]
        factor *= ratio
        notes.append(
            f"{name} takes {ratio:.3g} times as long an instance as {known}: multiply-adds"
        )
    line = lines.get(precision)
    if line is None:
        used = "fp32" if "fp32" in lines else next(iter(lines))
        line = lines[used]
        notes.append(f"{precision} is as fast as {used}")
    return StepTime(line.fixed, line.instance * factor), notes


def predict(work: Workload, machine: Machine, nodes: int, way: Way) -> Prediction:
    """What a run costs.

    T = max((compute + overhead)·E[max of W] + allreduce, storage, cores, exchange, link)

    The input of the next steps is made while a step is computed, and all wait for the slowest rank.

    Args:
        work: what is computed.
        machine: on what.
        nodes: of the job.
        way: where and how.
    """
    layout, overhead = way.layout, machine.step.overhead
    passes = step_time(work, machine)[0].seconds(layout.microbatch)
    compute = layout.microbatches * passes
    made = reading(work, machine, layout, way.io, way.exchange)
    if machine.device == "cpu":  # the same cores make the input
        compute += made.cores
    slowest, spread = noise.slowest(machine.step.noise, layout.world_size)
    parts = {
        "compute": compute,
        "overhead": overhead,
        "waiting": (compute + overhead) * (slowest - 1),
        "allreduce": _exposed(work, machine, nodes, passes, way.buckets),
    }
    chain, stages = sum(parts.values()), _stages(work, machine, nodes, made)
    seconds = max(chain, *stages.values())
    longest = stages if seconds > chain else parts
    bound = max(longest, key=lambda name: longest[name])
    jitter = spread * (compute + overhead + parts["waiting"]) / seconds
    every, expected = _with_failures(work, machine, nodes, seconds)
    return Prediction(
        way=way,
        nodes=nodes,
        seconds=seconds,
        deviation=math.hypot(jitter, machine.step.drift),
        parts={**parts, "input": seconds - chain},
        input=made,
        bound=bound,
        memory=work.memory(layout.instances_per_rank, layout.microbatch),
        steps=work.steps,
        # Shards stay open: every reader opens each of them once.
        opens=made.opens * work.steps if not work.shards else made.readers * work.shards,
        bytes_read=_bytes_of_run(work, machine, made),
        checkpoint_every=every,
        expected=expected,
    )


def _exposed(work: Workload, machine: Machine, nodes: int, passes: float, buckets: int) -> float:
    """Seconds of the sums that show: each bucket is an allreduce of its own, with its latency.

    Microbatches are summed on the rank first: only the last one's backward pass hides messages.
    """
    each = collectives.allreduce(
        machine.allreduce, work.message / buckets, nodes, machine.node.ranks, machine.network
    )
    return collectives.exposed(each, collectives.BACKWARD * passes, buckets)


def _stages(work: Workload, machine: Machine, nodes: int, made: Reading) -> dict[str, float]:
    """Seconds of what goes on beside the steps; the slowest of them may hold up training."""
    # A reader that is ahead makes up for its slow steps. The factor fits the simulator.
    ahead = 2 * work.config.placement.prefetch + 1
    late, _ = noise.slowest(machine.input.noise / ahead, made.readers)
    return {
        "storage": made.storage * late,
        "cores": made.cores * late,
        "exchange": made.exchange,
        "link": made.link + collectives.link_seconds(work.message, nodes, machine.network),
    }


def _bytes_of_run(work: Workload, machine: Machine, made: Reading) -> float:
    """Bytes from storage, epoch by epoch: what a node has read before and still keeps is not.

    A node reads a share f of the samples an epoch, at random. After e epochs it has seen
    1 - (1 - f)^e of them, and keeps at most cache / size of the dataset.
    """
    if not work.stored:
        return 0.0
    kept = min(1.0, machine.node.cache / (work.samples * work.record))
    epochs = work.steps / work.epoch_steps
    total = 0.0
    for epoch in range(math.ceil(epochs)):
        hits = min(kept, 1 - (1 - made.node_share) ** epoch)
        total += made.bytes_read * work.epoch_steps * min(1.0, epochs - epoch) * (1 - hits)
    return total


def _with_failures(
    work: Workload, machine: Machine, nodes: int, seconds: float
) -> tuple[int, float]:
    """(steps between two checkpoints, expected seconds of the run)."""
    between = failures.between_failures(machine.failures, nodes)
    interval = failures.best_interval(machine.failures.checkpoint, between)
    every = min(work.steps, max(1, round(interval / seconds)))
    return every, failures.expected_seconds(
        work.steps * seconds, every * seconds, machine.failures, nodes
    )
