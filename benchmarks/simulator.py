"""Groups, readers and collectives as events: what the formulas of `ba_dist/planner` are checked by.

The same rules twice. `by_events` has a process for every reader, group and rank (simpy) and serves
up to some hundred ranks. `by_arrays` goes step by step with an array over all ranks (numpy) and
serves 10^5. Where no storage is shared, both give the same times from the same draws.

- A reader reads step s when it has read s-1 and its rank has begun step s - prefetch.
- A group gathers a step when all its readers have read it, one step at a time.
- A rank begins a step when the step before has ended and its group has gathered the batch.
- The allreduce begins when the slowest rank has computed, and ends the step for all.
- Storage serves one request at a time, in the order in which they come.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """What happens, with every draw made before.

    Args:
        compute: seconds [W, steps] of each rank's gradient.
        read: seconds [readers, steps] of each reader's share; readers of a group are consecutive.
        group_size: ranks of a group, R.
        exchange: seconds of a group's gather.
        allreduce: seconds after the slowest rank.
        prefetch: steps that are read ahead.
        serve: seconds for which a reader's request of a step keeps the shared storage busy.
    """

    compute: Floats
    read: Floats
    group_size: int
    exchange: float
    allreduce: float
    prefetch: int
    serve: float = 0.0

    @property
    def groups(self) -> int:
        """G."""
        return len(self.compute) // self.group_size

    @property
    def readers_of_group(self) -> int:
        """Readers that a group has: one, or one a rank."""
        return len(self.read) // self.groups


def draws(mean: float, deviation: float, shape: tuple[int, int], seed: int) -> Floats:
    """Log-normal seconds with this mean and relative deviation."""
    sigma = np.sqrt(np.log1p(deviation**2))
    normal = np.random.default_rng(seed).standard_normal(shape)
    return mean * np.exp(sigma * normal - sigma**2 / 2)


def by_arrays(run: Run) -> Floats:
    """The end of each step, float64 [steps].

    Storage serves all requests of a step before those of the next: a reader that is ahead of
    another by a step does not overtake it here, as it may in `by_events`.
    """
    steps = run.compute.shape[1]
    each, of_group = run.group_size, run.readers_of_group
    read_at, gathered = np.zeros(len(run.read)), np.zeros(run.groups)
    begun = np.zeros((run.prefetch, len(run.compute)))  # a ring: when ranks began a step
    free, end, ends = 0.0, 0.0, np.zeros(steps)
    first = np.arange(len(run.read)) * len(run.compute) // len(run.read)  # a reader's rank
    for step in range(steps):
        asked = np.maximum(read_at, begun[step % run.prefetch][first])
        if run.serve:
            order = np.argsort(asked, kind="stable")
            places = np.arange(len(order))
            late = np.maximum.accumulate(np.maximum(asked[order], free) - places * run.serve)
            asked[order] = late + (places + 1) * run.serve
            free = float(asked[order[-1]])
        read_at = asked + run.read[:, step]
        whole = read_at.reshape(run.groups, of_group).max(axis=1)
        gathered = np.maximum(gathered, whole) + run.exchange
        start = np.maximum(end, np.repeat(gathered, each))
        begun[step % run.prefetch] = start
        end = float((start + run.compute[:, step]).max()) + run.allreduce
        ends[step] = end
    return ends


def by_events(run: Run) -> Floats:
    """The end of each step, float64 [steps], by a process for each reader, group and rank."""
    import simpy

    world, steps = run.compute.shape
    env = simpy.Environment()
    storage = simpy.Resource(env)
    began = [[env.event() for _ in range(steps)] for _ in range(world)]
    read = [[env.event() for _ in range(steps)] for _ in range(len(run.read))]
    gathered = [[env.event() for _ in range(steps)] for _ in range(run.groups)]
    computed = [[env.event() for _ in range(steps)] for _ in range(world)]
    ended, ends = [env.event() for _ in range(steps)], np.zeros(steps)

    def reader(number: int) -> Iterator[Any]:
        rank = number * world // len(run.read)
        for step in range(steps):
            if step >= run.prefetch:
                yield began[rank][step - run.prefetch]
            if run.serve:
                with storage.request() as turn:
                    yield turn
                    yield env.timeout(run.serve)
            yield env.timeout(run.read[number, step])
            read[number][step].succeed()

    def group(number: int) -> Iterator[Any]:
        lanes = range(number * run.readers_of_group, (number + 1) * run.readers_of_group)
        for step in range(steps):
            yield env.all_of([read[lane][step] for lane in lanes])
            yield env.timeout(run.exchange)
            gathered[number][step].succeed()

    def rank(number: int) -> Iterator[Any]:
        for step in range(steps):
            if step:
                yield ended[step - 1]
            yield gathered[number // run.group_size][step]
            began[number][step].succeed()
            yield env.timeout(run.compute[number, step])
            computed[number][step].succeed()

    def world_sum() -> Iterator[Any]:
        for step in range(steps):
            yield env.all_of([computed[r][step] for r in range(world)])
            yield env.timeout(run.allreduce)
            ends[step] = env.now
            ended[step].succeed()

    for process, count in ((reader, len(run.read)), (group, run.groups), (rank, world)):
        for number in range(count):
            env.process(process(number))
    env.process(world_sum())
    env.run()
    return ends


def seconds_of_a_step(ends: Floats, warm_up: int = 20) -> float:
    """The mean after the first steps, which fill what is read ahead."""
    return float((ends[-1] - ends[warm_up - 1]) / (len(ends) - warm_up))


# --- messages -------------------------------------------------------------------------------------


def ring_allreduce(starts: Floats, size: float, latency: float, bandwidth: float) -> float:
    """When the last rank has the sum: each round a rank sends a part to the next one."""
    world, at = len(starts), starts.copy()
    for _ in range(2 * (world - 1)):
        # A rank goes on when it has sent its part and has got the one of the rank before.
        at = np.maximum(at, np.roll(at, 1)) + latency + size / world / bandwidth
    return float(at.max())


def halving_allreduce(starts: Floats, size: float, latency: float, bandwidth: float) -> float:
    """Recursive halving, then doubling, over a power of two of ranks."""
    world, at = len(starts), starts.copy()
    index, distance, part = np.arange(world), world // 2, size / 2
    turns = []
    while distance:
        turns.append((distance, part))
        distance, part = distance // 2, part / 2
    for apart, sent in [*turns, *turns[::-1]]:
        at = np.maximum(at, at[index ^ apart]) + latency + sent / bandwidth
    return float(at.max())


def buckets(
    size: float, world: int, latency: float, bandwidth: float, *, backward: float, count: int
) -> float:
    """Seconds after the backward pass at which the last bucket is summed, message by message.

    Args:
        size: bytes of all buckets.
        world: ranks, a power of two.
        latency: seconds before the first byte of each message.
        bandwidth: bytes a second.
        backward: seconds of the backward pass, which gives a bucket after the other.
        count: of the buckets.
    """
    free = 0.0
    for bucket in range(count):
        begun = max(free, backward * (bucket + 1) / count)
        free = halving_allreduce(np.full(world, begun), size / count, latency, bandwidth)
    return free - backward


# --- failures -------------------------------------------------------------------------------------


def with_failures(
    work: float, interval: float, *, checkpoint: float, restart: float, between: float,
    trials: int, seed: int,
) -> Floats:  # fmt: skip
    """Seconds of each trial until all work is done and kept, float64 [trials].

    Args:
        work: seconds of training.
        interval: seconds of it between two checkpoints.
        checkpoint: seconds of one.
        restart: seconds after a failure, which may fail again.
        between: mean seconds between two failures.
    """
    rng = np.random.default_rng(seed)
    segments = round(work / interval)
    left, clock = np.full(trials, segments), np.zeros(trials)
    need = np.full(trials, interval + checkpoint)
    while (left > 0).any():
        until = rng.exponential(between, trials)
        going, kept = left > 0, until >= need
        clock += np.where(going, np.minimum(until, need), 0.0)
        left = left - (going & kept)
        need = np.where(kept, interval + checkpoint, restart + interval + checkpoint)
    return clock
