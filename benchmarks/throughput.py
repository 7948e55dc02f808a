"""Training images per second, batch size by batch size: Table 5 of the paper.

    python benchmarks/throughput.py --batch-sizes 1,2,4,8 --trials 20
    launch/mpirun.sh -n 2 -- python benchmarks/throughput.py --baseline horovod --baseline plain

The step is ba_dist's own: ghost BatchNorm, one fused allreduce, SGD with momentum. A batch size is
the instances that a rank trains on in a step. Every rank times itself; a trial's total is the sum
of the ranks' rates, so no rank speaks for another. Contenders take turns, trial by trial.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import baselines
import click
import numpy as np
import training
from harness import (
    Measure,
    Numbers,
    Report,
    Table,
    count_option,
    image_size_option,
    last_lines,
    measure,
    model_option,
    one_message,
    output_option,
    output_path,
    precision_option,
)
from ranks import patient_barrier

from ba_dist import runtime
from ba_dist.calibration.steps import train_step
from ba_dist.comm import Comm
from ba_dist.config import Config
from ba_dist.rules.layout import Layout

runtime.quiet()

BASELINES = ("horovod", "plain", "fixed")
Result = dict[str, Any]
Trial = Callable[[], float]


@dataclass(frozen=True)
class Trials:
    """How long is measured.

    Args:
        count: trials that count.
        steps: of a trial.
        warm_up: trials before, which do not count.
    """

    count: int
    steps: int
    warm_up: int


# --- measuring ------------------------------------------------------------------------------------


class Bench:
    """Everything that all batch sizes have in common, on one rank.

    Args:
        config: model, image size, precision, dataset.
        comm: the ranks.
        trials: how long is measured.
        baseline: names of `BASELINES`.
        real: read the dataset instead of repeating one batch.
    """

    def __init__(self, config: Config, comm: Comm, trials: Trials, baseline: list[str], real: bool):
        from ba_dist.models.precision import set_precision

        self.config, self.comm, self.trials, self.baseline = config, comm, trials, baseline
        self.data = training.open_data(config, comm) if real else None
        settings = {"model": config.model.model, "image_size": config.data.image_size}
        set_precision(config.run.precision)
        self.network = baselines.keras_network(**settings) if "horovod" in baseline else None
        self.plain = None
        if "plain" in baseline and comm.rank == 0:
            self.plain = baselines.Plain({**settings, "precision": config.run.precision})

    def measure(self, size: int, layout: Layout) -> list[Result]:
        """ba_dist and the baselines with one batch size; collective over the world."""
        with contextlib.ExitStack() as stack:
            turns = self._ours(size, layout, stack)
            if self.network is not None:
                batch = baselines.fixed_batch(size, self.config.data.image_size, self.comm.rank)
                turns["horovod"] = self._timed(baselines.horovod_step(self.network, batch))
            if "plain" in self.baseline:
                turns["plain"] = lambda: self._plain(size)
            seconds = self._alternate(turns)
        return [
            result_of(name, size, layout, size * self.trials.steps / found[found.any(axis=1)])
            for name, found in seconds.items()
        ]

    def _ours(self, size: int, layout: Layout, stack: contextlib.ExitStack) -> dict[str, Trial]:
        """ba_dist's step, and with the baseline `fixed` the same step on its first batch alone."""
        image_size = self.config.data.image_size
        if self.data:
            config, source, task = self.data
            total = 1 + (self.trials.warm_up + self.trials.count) * self.trials.steps
            batches = stack.enter_context(
                training.real_batches(config, layout, self.comm, source, task, total)
            )
            shape, classes = task.facts["image_shape"], task.facts["classes"]
        else:
            batches = training.fixed_batches(size, image_size, self.comm.rank)
            shape, classes = (image_size, image_size, 3), baselines.CLASSES
        train = train_step(self.comm, layout, self.config, shape, classes)
        turns = {"ba_dist": self._timed(lambda: train(next(batches)))}
        if "fixed" in self.baseline:
            first = next(batches)
            turns["fixed"] = self._timed(lambda: train(first))
        return turns

    def _timed(self, step: Callable[[], Any]) -> Trial:
        return lambda: baselines.timed(step, 1, self.trials.steps)[0]

    def _plain(self, size: int) -> float:
        """Rank 0 has the plain process measure; the others leave it the cores."""
        return self.plain.timed(size, 1, self.trials.steps)[0] if self.plain else 0.0

    def _alternate(self, turns: dict[str, Trial]) -> dict[str, np.ndarray]:
        """Name → seconds [ranks, trials]; a rank that took no part has zeros."""
        seconds: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(self.trials.warm_up + self.trials.count):
            for name, trial in turns.items():
                patient_barrier()
                seconds[name].append(trial())
        patient_barrier()
        return {
            name: self.comm.world.gather_all(np.array(mine[self.trials.warm_up :]))
            for name, mine in seconds.items()
        }

    def close(self) -> None:
        """Ends the plain process."""
        if self.plain:
            self.plain.close()


# --- results --------------------------------------------------------------------------------------


def result_of(name: str, size: int, layout: Layout, rates: np.ndarray) -> Result:
    """What one contender did with one batch size.

    Args:
        rates: images per second [ranks that took part, trials].
    """
    return {
        "contender": name,
        "batch_size_per_rank": size,
        "distinct_samples": layout.batch_size,
        "microbatch": layout.microbatch,
        "images_per_second_per_rank": measure(rates.mean(axis=0)).as_dict(),
        "images_per_second": measure(rates.sum(axis=0)).as_dict(),
    }


def table(results: list[Result], device: str) -> Table:
    """A row a batch size and contender."""
    made = Table(
        f"Training images per second; batch: instances of a rank ({device})",
        ["contender", "batch", f"img/s/{device}", "+-", "img/s in all", "+-", "x ba_dist"],
    )
    ours = {r["batch_size_per_rank"]: r for r in results if r["contender"] == "ba_dist"}
    for result in results:
        size = result["batch_size_per_rank"]
        each, total = result["images_per_second_per_rank"], result["images_per_second"]
        made.add(
            result["contender"],
            size,
            each["median"],
            each["deviation"],
            total["median"],
            total["deviation"],
            total["median"] / ours[size]["images_per_second"]["median"],
        )
    return made


def device_kind() -> str:
    """CPU or GPU, whichever TensorFlow computes on."""
    import tensorflow as tf

    return "GPU" if tf.config.list_logical_devices("GPU") else "CPU"


@click.command(context_settings={"max_content_width": 100})
@model_option
@click.option(
    "--batch-sizes",
    type=Numbers(),
    default="1,2,4,8,16,32,64,128",
    show_default=True,
    help="Instances that a rank trains on in a step.",
)
@image_size_option("Height and width that the network sees.")
@count_option("--multiplicity", 1, "M, augmented copies of each sample.")
@precision_option("fp32", "bf16", "fp16", text="Arithmetic of the network.")
@click.option(
    "--microbatch",
    type=click.IntRange(0),
    default=0,
    help="Instances that go through the network at once.  [default: as ba-dist train]",
)
@count_option("--trials", 200, "Measurements of which the median is taken.")
@count_option("--steps-per-trial", 1, "Training steps of a measurement.")
@count_option(
    "--warm-up", 10, "Measurements before, which do not count; the first builds the graph."
)
@click.option(
    "--dataset",
    default="",
    metavar="NAME",
    help="Read this dataset through ba_dist's pipeline (synthetic-jpeg, imagenet, ...)."
    "  [default: one fixed batch, no input]",
)
@click.option("--data-dir", default="", metavar="FOLDER", help="Where the dataset is.")
@click.option(
    "--baseline",
    type=click.Choice(BASELINES),
    multiple=True,
    help="Compare in the same run; may be given several times. horovod: the same network with"
    " Keras BatchNorm in a plain Horovod loop. plain: one process, all cores. fixed, with"
    " --dataset: ba_dist's step on one batch again and again.",
)
@output_option
@one_message
def main(
    model,
    batch_sizes,
    image_size,
    multiplicity,
    precision,
    microbatch,
    trials,
    steps_per_trial,
    warm_up,
    dataset,
    data_dir,
    baseline,
    output,
):
    """Measure training images per second for each batch size (the paper's Table 5).

    Start several ranks with launch/mpirun.sh; totals are sums over all of them. Baselines always
    train on a fixed batch. On two cores ResNet-50 at 224 pixels does 8 to 15 images a second, so
    the default takes hours there:

        python benchmarks/throughput.py --batch-sizes 1,8 --trials 5 --warm-up 1
    """
    comm = training.join(fused="horovod" in baseline)
    layouts = {}
    for size in batch_sizes:
        layouts[size] = training.layout_for(
            size, multiplicity, comm.world_size, microbatch=microbatch
        )
    config = training.configuration(model, image_size, precision, dataset or "synthetic", data_dir)
    report = Report(
        "throughput",
        {
            "model": model,
            "image_size": image_size,
            "precision": precision,
            "trials": trials,
            "steps_per_trial": steps_per_trial,
            "warm_up": warm_up,
            "input": dataset or "one batch",
        },
    )
    first = layouts[batch_sizes[0]]
    report.layout = {
        "ranks": comm.world_size,
        "groups": first.groups,
        "copies": multiplicity,
        "copies a rank": first.copies_per_rank,
    }
    bench = Bench(
        config, comm, Trials(trials, steps_per_trial, warm_up), list(baseline), bool(dataset)
    )
    for size, layout in layouts.items():
        report.results += bench.measure(size, layout)
    bench.close()
    if comm.rank:
        return
    device = device_kind()
    report.tables.append(table(report.results, device))
    path = output_path("throughput", output)
    report.write(path)
    report.show(path)
    last = next(r for r in reversed(report.results) if r["contender"] == "ba_dist")
    each, total = last["images_per_second_per_rank"], last["images_per_second"]
    print(last_lines(Measure(**each), Measure(**total), comm.world_size, device), flush=True)


if __name__ == "__main__":
    main()
