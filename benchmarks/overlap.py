"""How much of the allreduce goes behind the backward pass: one message, or buckets.

    launch/mpirun.sh -n 2 -- python benchmarks/overlap.py --buckets-mb 0,4,8,25
    launch/srun.sh -- python benchmarks/overlap.py --compute-ms 400 --gradient-mb 4

Ways to sum take turns on the same batch: `alone`, a step that sends nothing; `0 MB`, one message
after the backward pass; buckets of some megabytes. `allreduce` is one message of the same size
while nothing is computed. What goes on at the same time can at best take the longer of `alone` and
`allreduce`; one after the other takes their sum.

With --compute-ms the network is replaced by waits, one for each of --layers, after which the
gradient of that layer is there. So the computing of several nodes does not share the cores of the
one machine on which a test cluster runs; what Horovod and TensorFlow do is real.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np
import training
from harness import (
    Report,
    Table,
    compute_ms_option,
    count_option,
    image_size_option,
    leave,
    measure,
    model_option,
    one_message,
    output_option,
    output_path,
    precision_option,
    steps_option,
)
from ranks import patient_barrier

from ba_dist import runtime
from ba_dist.calibration.steps import train_step
from ba_dist.comm import Comm
from ba_dist.config import override

runtime.quiet()

Result = dict[str, Any]
Work = Callable[[], tuple[float, float]]  # → seconds of computing, seconds of the allreduce


@dataclass(frozen=True)
class Settings:
    """What is measured; the fields are the flags."""

    buckets_mb: list[float]
    allreduce_dtype: str | None
    model: str
    image_size: int
    instances: int
    microbatch: int
    precision: str
    compute_ms: float
    gradient_mb: float
    layers: int
    rounds: int
    steps: int
    warm_up: int


class Alone:
    """A world in which nothing is sent: what others would give is this rank's own."""

    def __init__(self, comm: Comm):
        self.rank, self.world_size, self.world = comm.rank, comm.world_size, comm.world

    def allreduce(self, tensor: Any, name: str) -> Any:
        """The tensor."""
        return tensor

    alltoall = allreduce

    def allgather(self, tensor: Any, name: str) -> Any:
        """The tensor once for each rank."""
        import tensorflow as tf

        return tf.tile(tensor, [self.world_size])


# --- the work of a step ---------------------------------------------------------------------------


def of_network(settings: Settings, comm: Any, bucket_mb: float) -> tuple[Work, int]:
    """A step of the network, and the bytes of its gradient."""
    ghost = min(training.GHOST_BATCH, settings.microbatch or settings.instances)
    layout = training.layout_for(settings.instances, 1, comm.world_size, ghost, settings.microbatch)
    config = training.configuration(settings.model, settings.image_size, settings.precision)
    changes = {"bucket_mb": bucket_mb, "allreduce_dtype": settings.allreduce_dtype}
    config = override(config, changes)
    shape = (settings.image_size, settings.image_size, 3)
    step = train_step(comm, layout, config, shape, 1000)
    batches = training.fixed_batches(settings.instances, settings.image_size, comm.rank)

    def work() -> tuple[float, float]:
        result = step(next(batches))
        return result.compute_seconds, result.allreduce_seconds

    return work, sum(v.shape.num_elements() * 4 for v in step.func.model.trainable_variables)


def of_waits(settings: Settings, comm: Any, bucket_mb: float) -> tuple[Work, int]:
    """Waits of equal length, of which each gives the gradient of a layer, the last layer first."""
    import tensorflow as tf

    from ba_dist.optim.world_sum import WorldSum

    size = max(1, round(settings.gradient_mb * 1e6 / 4 / settings.layers))
    weights = [tf.Variable(tf.ones(size)) for _ in range(settings.layers)]
    pause = settings.compute_ms / 1000 / settings.layers
    world_sum = WorldSum(
        weights, comm, bucket_bytes=round(bucket_mb * 2**20), wire=settings.allreduce_dtype
    )

    def wait(before: Any) -> Any:
        time.sleep(pause)
        return before

    @tf.function(autograph=False)
    def graph() -> Any:
        gradients, before = [], tf.constant(1.0)
        for weight in reversed(weights):
            before = tf.ensure_shape(tf.numpy_function(wait, [before], tf.float32), [])
            gradients.insert(0, weight * before)
        flats, rest = world_sum(gradients, [tf.reshape(before, [1])])
        for weight, gradient in zip(weights, world_sum.unpack(flats), strict=True):
            weight.assign(0.5 * gradient)
        return rest[0]

    def work() -> tuple[float, float]:
        begun = time.perf_counter()
        graph().numpy()
        ready, summed = (float(at.numpy()) for at in (world_sum.ready_at, world_sum.summed_at))
        return ready - begun, summed - ready

    return work, 4 * size * settings.layers


def of_one_message(comm: Comm, size: int) -> Work:
    """One allreduce of so many bytes."""
    import tensorflow as tf

    buffer = tf.ones(size // 4)
    summed = tf.function(lambda: comm.allreduce(buffer, name="alone"), autograph=False)

    def work() -> tuple[float, float]:
        begun = time.perf_counter()
        summed()[0].numpy()
        return 0.0, time.perf_counter() - begun

    return work


# --- on the ranks ---------------------------------------------------------------------------------


def measure_all(settings: Settings, comm: Comm) -> list[Result]:
    """All ways of summing, taking turns; collective."""
    made = of_waits if settings.compute_ms else of_network
    alone, size = made(settings, Alone(comm), 0)
    ways = {"alone": alone, "allreduce": of_one_message(comm, size)}
    for bucket_mb in settings.buckets_mb:
        ways[f"{bucket_mb:g} MB"] = made(settings, comm, bucket_mb)[0]
    seconds: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(settings.rounds):
        for name, work in ways.items():
            patient_barrier()
            turn = [timed(work) for _ in range(settings.warm_up + settings.steps)]
            seconds[name] += turn[settings.warm_up :]
    patient_barrier()
    return [
        result_of(name, size, comm.world.gather_all(np.array(mine)))
        for name, mine in seconds.items()
    ]


def timed(work: Work) -> list[float]:
    """Seconds of the whole, of computing, of the allreduce."""
    begun = time.perf_counter()
    parts = work()
    return [time.perf_counter() - begun, *parts]


def result_of(name: str, size: int, seconds: np.ndarray) -> Result:
    """The result of one way.

    Args:
        seconds: [ranks, steps, parts]; a step takes as long as on the slowest rank.
    """
    by_step = seconds.max(axis=0) * 1000
    parts = ("step", "compute", "allreduce")
    return {
        "way": name,
        "gradient_bytes": size,
        "milliseconds": {part: measure(by_step[:, i]).as_dict() for i, part in enumerate(parts)},
    }


def table(results: list[Result], ranks: int) -> Table:
    """A row a way."""
    step = {r["way"]: r["milliseconds"]["step"]["median"] for r in results}
    longer, both = max(step["alone"], step["allreduce"]), step["alone"] + step["allreduce"]
    made = Table(
        f"Milliseconds of a step, gradients of {results[0]['gradient_bytes'] / 1e6:.1f} MB,"
        f" {ranks} ranks",
        ["way", "step", "+-", "compute", "allreduce", "x longer", "x sum"],
    )
    for result in results:
        ms = result["milliseconds"]
        sums = result["way"] not in ("alone", "allreduce")
        made.add(
            result["way"],
            ms["step"]["median"],
            ms["step"]["deviation"],
            ms["compute"]["median"],
            ms["allreduce"]["median"],
            ms["step"]["median"] / longer if sums else None,
            ms["step"]["median"] / both if sums else None,
        )
    return made


class Megabytes(click.ParamType):
    """Numbers from 0 up with commas between them."""

    name = "MB,MB,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> list[float]:
        """The list of numbers, in the order given."""
        try:
            return [float(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is no list of numbers such as 0,4,8.5", param, ctx)


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--buckets-mb",
    type=Megabytes(),
    default="0,4",
    show_default=True,
    help="Sizes of buckets that take turns; 0: one message for all.",
)
@click.option(
    "--allreduce-dtype",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="What gradients are sent as.  [default: as they are]",
)
@model_option
@image_size_option()
@count_option("--instances", 16, "Of a rank in a step.")
@click.option(
    "--microbatch",
    type=click.IntRange(0),
    default=0,
    help="Instances that go through the network at once.  [default: 32 on CPU]",
)
@precision_option("fp32", "bf16")
@compute_ms_option
@click.option(
    "--gradient-mb",
    type=click.FloatRange(0.001),
    default=10.0,
    show_default=True,
    help="With --compute-ms: megabytes of gradients.",
)
@count_option("--layers", 50, "With --compute-ms: gradients of equal size, one after the other.")
@count_option("--rounds", 4)
@steps_option(5)
@count_option("--warm-up", 2)
@output_option
@one_message
def main(output, **values):
    """Measure how much of the allreduce goes behind the backward pass; started on several ranks."""
    settings = Settings(**values)
    path = output_path("overlap", output)
    comm = training.join()
    if comm.world_size == 1:
        leave("one rank sends nothing; start it on several: launch/mpirun.sh -n 2 -- python ...")
    report = Report("overlap", asdict(settings), {"ranks": comm.world_size})
    report.results = measure_all(settings, comm)
    report.layout["hosts"] = len(set(comm.hosts))
    if comm.rank == 0:
        report.tables.append(table(report.results, comm.world_size))
        report.write(path)
        report.show(path)


if __name__ == "__main__":
    main()
