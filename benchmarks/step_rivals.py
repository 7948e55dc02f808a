"""The training step of ba_dist beside those of others, each in an environment of its own.

    python benchmarks/step_rivals.py --model resnet44 --image-size 32 --batch-sizes 64,128 \
        --ranks 1 --rival pytorch=PYTHON
    python benchmarks/step_rivals.py --model resnet50 --batch-sizes 16 \
        --rival horovod-example=PYTHON --example tensorflow2_synthetic_benchmark.py

Contenders take turns, round by round, each as a program of its own that trains on one fixed batch
with all cores of the machine and prints its images per second; ratios are taken round by round.

    pytorch          benchmarks/torch_step.py: the same network, one process, SGD with momentum
    horovod-example  Horovod's own TensorFlow 2 example, unmodified, on as many ranks
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import baselines
import click
import operations
from harness import (
    MPIRUN,
    Numbers,
    Report,
    Table,
    count_option,
    image_size_option,
    measure,
    one_message,
    output_option,
    output_path,
    precision_option,
)

from ba_dist import runtime
from ba_dist.errors import UserError

_RIVALS = ("pytorch", "horovod-example")
_TOTAL = re.compile(r"Total img/sec on \d+ \w+\(s\): ([0-9.]+)")
Result = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What every contender is asked for.

    Args:
        model: name of a residual network.
        image_size: height and width.
        precision: fp32 or bf16.
        ranks: of ba_dist and of Horovod's example.
        trials: that count, of a turn; rates of a turn are their median.
        warm_up: trials before.
        steps: of a trial.
    """

    model: str
    image_size: int
    precision: str
    ranks: int
    trials: int
    warm_up: int
    steps: int


# --- contenders -----------------------------------------------------------------------------------


def ours(settings: Settings, size: int) -> tuple[list[str], dict[str, str]]:
    """(command, variables) of ba_dist's step with batches of this size on a rank."""
    program = Path(__file__).with_name("throughput.py")
    words = [*_of_model(settings), f"--batch-sizes={size}"]
    line = [f"{MPIRUN}", "-n", f"{settings.ranks}", "--", "python", f"{program}"]
    return [*line, *words, *_of_trials(settings)], {}


def pytorch(settings: Settings, size: int, python: str) -> tuple[list[str], dict[str, str]]:
    """The same of PyTorch: one process with the batches of all ranks in one."""
    program = Path(__file__).with_name("torch_step.py")
    words = [*_of_model(settings), f"--batch-size={size * settings.ranks}"]
    words += [f"--classes={baselines.CLASSES}", *_of_trials(settings)]
    # As launch/mpirun.sh gives it to ranks.
    return [python, f"{program}", *words], {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def horovod_example(
    settings: Settings, size: int, python: str, example: str
) -> tuple[list[str], dict[str, str]]:
    """The same of Horovod's example, with the Keras 2 that it was written for.

    Raises:
        UserError: when it cannot train what is asked for.
    """
    if settings.model != "resnet50" or settings.precision != "fp32":
        raise UserError("Horovod's example trains --model resnet50 in --precision fp32 here")
    if settings.image_size != 224 or not Path(example).is_file():
        raise UserError(
            f"--example {example!r}: expected examples/tensorflow2/tensorflow2_synthetic_benchmark"
            ".py of Horovod's source, which trains at --image-size 224"
        )
    words = ["--no-cuda", "--model=ResNet50", f"--batch-size={size}"]
    words += [f"--num-warmup-batches={settings.warm_up * settings.steps}"]
    words += [f"--num-iters={settings.trials}", f"--num-batches-per-iter={settings.steps}"]
    line = [f"{MPIRUN}", "-n", f"{settings.ranks}", "--", "python", f"{Path(example).absolute()}"]
    # The launcher starts the other environment's Python with this one's mpirun.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return [*line, *words], {"BA_DIST_PYTHON": python, "PATH": path, "TF_USE_LEGACY_KERAS": "1"}


def _of_model(settings: Settings) -> list[str]:
    return [
        f"--model={settings.model}",
        f"--image-size={settings.image_size}",
        f"--precision={settings.precision}",
    ]


def _of_trials(settings: Settings) -> list[str]:
    return [
        f"--trials={settings.trials}",
        f"--warm-up={settings.warm_up}",
        f"--steps-per-trial={settings.steps}",
    ]


def turn(line: list[str], variables: dict[str, str]) -> float:
    """Runs a contender once: its images per second in all.

    Raises:
        UserError: with the end of its output, when it printed none.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:  # for what it writes by itself
            done = subprocess.run(
                line, capture_output=True, text=True, cwd=folder, env={**os.environ, **variables}
            )
    except OSError as error:
        raise UserError(f"{line[0]} cannot be run: {error}") from None
    found = _TOTAL.search(done.stdout)
    if done.returncode or not found:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        raise UserError(f"{Path(line[0]).name} ended with status {done.returncode}:\n{end}")
    return float(found[1])


# --- results --------------------------------------------------------------------------------------


def gflop_of(settings: Settings) -> dict[str, float]:
    """Contender → GFLOP that it spends on an image."""
    shape = (settings.image_size, settings.image_size, 3)
    same = operations.training_gflop(baselines.keras_network(settings.model, settings.image_size))
    found = {"ba_dist": same, "pytorch": same}
    if settings.model == "resnet50":
        import keras

        network = keras.applications.ResNet50(weights=None, input_shape=shape)
        found["horovod-example"] = operations.training_gflop(network)
    return found


def results_of(rates: dict[str, list[float]], size: int, gflop: dict[str, float]) -> list[Result]:
    """A result a contender: its rates by round, and ba_dist's rate relative to it."""
    results = []
    for name, mine in rates.items():
        pairs = zip(rates["ba_dist"], mine, strict=True)
        results.append(
            {
                "contender": name,
                "batch_size_per_rank": size,
                "rates": mine,
                "gflop_per_image": gflop[name],
                "images_per_second": measure(mine).as_dict(),
                "ba_dist_to_it": measure(own / other for own, other in pairs).as_dict(),
            }
        )
    return results


def table(results: list[Result], settings: Settings) -> Table:
    """A row a batch size and contender."""
    made = Table(
        f"Training {settings.model} at {settings.image_size} pixels in {settings.precision}, images"
        " per second in all",
        ["contender", "batch", "img/s", "+-", "GFLOP/image", "GFLOP/s", "ba_dist is x"],
    )
    for result in results:
        rate, gflop = result["images_per_second"], result["gflop_per_image"]
        made.add(
            result["contender"],
            result["batch_size_per_rank"],
            rate["median"],
            rate["deviation"],
            gflop,
            rate["median"] * gflop,
            result["ba_dist_to_it"]["median"],
        )
    return made


# --- the command line -----------------------------------------------------------------------------


def _rivals(values: tuple[str, ...]) -> dict[str, str]:
    """Rival → its interpreter."""
    found = dict(value.partition("=")[::2] for value in values)
    for name, python in found.items():
        if name not in _RIVALS or not python:
            raise UserError(f"--rival {name}={python}: expected {' or '.join(_RIVALS)}, =PYTHON")
    return found


@click.command(context_settings={"max_content_width": 100})
@click.option("--model", default="resnet50", show_default=True, help="resnet50 or resnetN, N=6n+2.")
@image_size_option()
@click.option(
    "--batch-sizes",
    type=Numbers(),
    default="16",
    show_default=True,
    help="Instances that a rank trains on in a step; PyTorch's one process takes those of all.",
)
@precision_option("fp32", "bf16")
@count_option("--ranks", 2)
@count_option("--rounds", 3, "Turns each.")
@count_option("--trials", 5, "Of a turn.")
@count_option("--warm-up", 2)
@count_option("--steps-per-trial", 1)
@click.option(
    "--rival",
    multiple=True,
    metavar="NAME=PYTHON",
    help=f"{' or '.join(_RIVALS)}, with the interpreter of its environment; may be given twice.",
)
@click.option(
    "--example",
    default="",
    metavar="FILE",
    help="tensorflow2_synthetic_benchmark.py of Horovod's source, for horovod-example.",
)
@output_option
@one_message
def main(
    model, image_size, batch_sizes, precision, ranks, rounds, trials, warm_up, steps_per_trial,
    rival, example, output,
):  # fmt: skip
    """Measure ba_dist's training step beside PyTorch's and that of Horovod's own example."""
    rivals = _rivals(rival)
    settings = Settings(model, image_size, precision, ranks, trials, warm_up, steps_per_trial)
    contenders = {"ba_dist": lambda size: ours(settings, size)}
    if python := rivals.get("pytorch"):
        contenders["pytorch"] = lambda size: pytorch(settings, size, python)
    if other := rivals.get("horovod-example"):
        contenders["horovod-example"] = lambda size: horovod_example(settings, size, other, example)
    lines = {size: {name: of(size) for name, of in contenders.items()} for size in batch_sizes}
    report = Report("step_rivals", {**vars(settings), "rounds": rounds}, {"ranks": ranks})
    rates = {size: {name: [] for name in contenders} for size in batch_sizes}
    for _ in range(rounds):
        for size, turns in lines.items():
            for name, line in turns.items():
                rates[size][name].append(turn(*line))
    runtime.quiet()
    gflop = gflop_of(settings)
    for size in batch_sizes:
        report.results += results_of(rates[size], size, gflop)
    report.tables.append(table(report.results, settings))
    path = output_path("step_rivals", output)
    report.write(path)
    report.show(path)


if __name__ == "__main__":
    main()
