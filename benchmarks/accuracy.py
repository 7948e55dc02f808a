"""The accuracy experiment of tables 2 and 3 and figure 2, small: do copies pay?

    python benchmarks/accuracy.py
    python benchmarks/accuracy.py --samples 512 --epochs 8 --seeds 0,1     # a look

ResNet-8 on a part of Fashion-MNIST, by `ba-dist sweep`, so the same command goes on where it was
stopped. All experiments make the same number of updates, but for `half`:

    fixed-steps      B samples, one copy                 table 2, second column
    BA               B samples, M copies
    fixed-samples    B·M samples, one copy               table 2, third column
    fixed-compute    B / M samples, M copies             as many gradients as fixed-steps
    half             B samples, M copies, half of the updates and of the regime    figure 2
    mixup            fixed-steps and BA with mixup       table 3
"""

import math
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from accuracy_plot import draw
from harness import Numbers, Report, Table, count_option, one_message, output_option, output_path
from scipy import stats

from ba_dist.errors import UserError
from ba_dist.run.run_dir import read_json
from ba_dist.sweep.grid import run_name

RATE = 0.2  # the peak, as in quickstart


@dataclass(frozen=True)
class Experiment:
    """One line of the table: the same settings for every seed.

    Args:
        name: as the table has it.
        folder: of its sweep, in the folder of all.
        flags: of `ba-dist sweep quickstart`, beside those that all share.
    """

    name: str
    folder: str
    flags: tuple[str, ...]


def experiments(most: int, copies: list[int], epochs: int, mixup: float) -> list[Experiment]:
    """All lines of the table, the one that others are compared with first.

    Args:
        most: the M of the experiments that have one M alone.
        copies: each M of batch augmentation.
        epochs: of fixed-steps and BA.
        mixup: alpha of mixup; 0 for no line with it.
    """

    def flags(multiplicity: int, length: int = epochs, *more: str) -> tuple[str, ...]:
        # Seldom evaluated: that costs as much as ten epochs of a thousand samples.
        counted = (f"--epochs={length}", f"--eval-every={max(1, length // 4)}")
        regime = f"--lr=0:{RATE}:linear,{length}:0"
        return (f"--multiplicity={multiplicity}", *counted, regime, *more)

    mixed = [
        Experiment("fixed-steps, mixup", "m1-mixup", flags(1, epochs, f"--mixup={mixup}")),
        Experiment(
            f"BA, M = {most}, mixup", f"m{most}-mixup", flags(most, epochs, f"--mixup={mixup}")
        ),
    ]
    # Epochs that are given are the baseline's own; as many updates need more or fewer of them.
    lengths = {"fixed-samples": epochs * most, "fixed-compute": epochs // most}
    derived = [
        Experiment(f"{name}, M = {most}", name, flags(most, length, f"--baseline={name}"))
        for name, length in lengths.items()
    ]
    return [
        Experiment("fixed-steps", "m1", flags(1)),
        *(Experiment(f"BA, M = {m}", f"m{m}", flags(m)) for m in copies),
        *derived,
        Experiment(f"BA, M = {most}, half the steps", "half", flags(most, epochs // 2)),
        *(mixed if mixup else []),
    ]


def train(experiment: Experiment, shared: list[str], home: Path) -> None:
    """Trains what is not finished of every seed's run of an experiment.

    Raises:
        UserError: when a run failed, with the command that did.
    """
    command = [
        *(sys.executable, "-m", "ba_dist", "sweep", "quickstart", f"--output={home}"),
        *(*shared, *experiment.flags),
    ]
    print(f"--- {experiment.name}", flush=True)
    if subprocess.run(command).returncode:
        raise UserError(f"an experiment failed; the same command goes on: {shlex.join(command)}")


def finished(home: Path, seeds: list[int], dataset: str) -> list[dict[str, Any]]:
    """The summaries of these seeds' runs; the folder of the sweep may hold more, of other seeds.

    Raises:
        UserError: when a run has learned something else: quickstart takes digits of a wheel where
            its dataset is not there.
    """
    runs = []
    for seed in seeds:
        run = home / run_name({"seed": seed} if len(seeds) > 1 else {})
        learned = read_json(run / "config.json")["config"]["data"]["dataset"]
        if learned != dataset:
            raise UserError(
                f"{run} was trained on {learned}, not on {dataset}, which could not be opened:"
                f" `ba-dist data prepare {dataset}`, then choose another --output"
            )
        runs.append(read_json(run / "summary.json"))
    return runs


def interval(values: list[float]) -> tuple[float, float]:
    """(mean, half of the 95 % interval by Student's t); the half is infinite for one value."""
    count = len(values)
    if count < 2:
        return values[0], math.inf
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return float(np.mean(values)), float(stats.t.ppf(0.975, count - 1)) * error


def row(
    name: str, seeds: list[int], runs: list[dict[str, Any]], first: list[dict[str, Any]]
) -> dict[str, Any]:
    """The line of an experiment; differences are taken seed by seed."""
    accuracy = [100 * run["val_top1"] for run in runs]
    gained = [a - 100 * run["val_top1"] for a, run in zip(accuracy, first, strict=True)]
    mean, half = interval(accuracy)
    difference, difference_half = interval(gained)
    return {
        "experiment": name,
        "multiplicity": runs[0]["multiplicity"],
        "batch_size": runs[0]["batch_size"],
        "updates": runs[0]["steps"],
        "instances": runs[0]["instances"],
        "seeds": seeds,
        "accuracy": accuracy,
        "mean": mean,
        "interval": half,
        "difference": difference,
        "difference_interval": difference_half,
        "seconds": sum(run["seconds"] for run in runs),
    }


def _check(samples: int, largest: int, epochs: int, most: int) -> None:
    """Refuses what gives other numbers of updates; `largest` is the B·M of `most` copies."""
    if epochs % most or epochs % 2:
        raise UserError(
            f"--epochs {epochs} must be a multiple of the largest of --copies, {most}, for"
            " fixed-compute, and even, for half the steps"
        )
    if samples % largest:
        raise UserError(
            f"--samples {samples} must be a multiple of B·M, {largest}: otherwise fixed-samples"
            " drops the rest of each epoch, and makes fewer updates"
        )


def _shown(mean: float, half: float, sign: str = "") -> str:
    return f"{mean:{sign}.2f}" + (f" ± {half:.2f}" if math.isfinite(half) else "")


@click.command(context_settings={"max_content_width": 100})
@click.option("--samples", type=click.IntRange(1), default=2048, show_default=True, help="N.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="B.")
@click.option("--epochs", type=click.IntRange(2), default=24, show_default=True, help="Even.")
@click.option("--copies", type=Numbers(), default="2,4,8", show_default=True, help="M of BA.")
@click.option(
    "--seeds",
    type=Numbers(0),
    default="0,1,2",
    show_default=True,
    help="Of the runs of each line.",
)
@click.option("--cutout", type=click.IntRange(0), default=14, show_default=True, help="Pixels.")
@click.option(
    "--mixup",
    type=click.FloatRange(0),
    default=0.2,
    show_default=True,
    help="Alpha; 0 leaves out what has it.",
)
@count_option("--ranks", 2, "Of a run.")
@click.option("--dataset", default="fashion_mnist", show_default=True, help="Also cifar10.")
@click.option("--data-dir", help="Where the dataset is prepared, if not in the cache.")
@output_option
@one_message
def main(
    samples, batch_size, epochs, copies, seeds, cutout, mixup, ranks, dataset, data_dir, output
):
    """Train every experiment with every seed, and compare their final accuracy.

    Runs are kept beside the JSON: the same command with the same --output goes on.
    """
    most = max(copies)
    _check(samples, batch_size * most, epochs, most)
    path = output_path("accuracy", output)
    listed = ",".join(map(str, seeds))
    shared = [
        *(f"--dataset={dataset}", f"--train-samples={samples}", f"--batch-size={batch_size}"),
        f"--cutout={cutout}",
        *(f"--seeds={listed}", f"--ranks={ranks}"),
        *([f"--data-dir={data_dir}"] if data_dir else []),
    ]
    settings = {"samples": samples, "batch_size": batch_size, "epochs": epochs, "copies": copies}
    settings |= {"seeds": listed, "cutout": cutout, "mixup": mixup, "dataset": dataset}
    report = Report("accuracy", settings, {"ranks": ranks})
    table = Table(
        f"Final accuracy in % (95 % intervals over seeds {listed}), {samples:,} samples",
        ["experiment", "B", "M", "updates", "instances", "accuracy", "to fixed-steps", "minutes"],
    )
    first = None
    for experiment in experiments(most, copies, epochs, mixup):
        home = path.parent / "accuracy-runs" / experiment.folder
        train(experiment, shared, home)
        runs = finished(home, seeds, dataset)
        first = first or runs
        line = row(experiment.name, seeds, runs, first)
        shorter = 2 if experiment.folder == "half" else 1
        if shorter * line["updates"] != first[0]["steps"]:
            raise UserError(
                f"{experiment.name} made {line['updates']} updates, not {first[0]['steps']} /"
                f" {shorter}: it cannot be compared"
            )
        report.results.append(line)
        table.add(
            *(line[name] for name in ("experiment", "batch_size", "multiplicity")),
            *(f"{line[name]:,}" for name in ("updates", "instances")),
            _shown(line["mean"], line["interval"]),
            "" if runs is first else _shown(line["difference"], line["difference_interval"], "+"),
            line["seconds"] / 60,
        )
    report.tables.append(table)
    report.notes.append(
        "the interval of an accuracy is Student's t over the seeds; a difference is taken seed by"
        " seed, so its interval is of those differences"
    )
    report.write(path)
    draw(report.results, path.with_suffix(".png"))
    report.show(path)


if __name__ == "__main__":
    main()
