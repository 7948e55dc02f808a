"""`ba-dist calibrate`: what this allocation does, as a machine file."""

import sys
from pathlib import Path

import click

from ba_dist.cli.flags import ListOf


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default="machine.toml",
    show_default=True,
    help="the machine file to write",
)
@click.option("--model", default="resnet50", show_default=True, help="network of the steps")
@click.option(
    "--image-size", type=click.IntRange(8), default=224, show_default=True, help="of its images"
)
@click.option(
    "--batch-sizes",
    type=ListOf(click.IntRange(1)),
    default="1,8,32",
    show_default=True,
    help="instances that go through the network at once; on a GPU larger ones",
)
@click.option(
    "--precisions",
    type=ListOf(click.Choice(["fp32", "bf16", "fp16", "fp64"])),
    default="fp32",
    show_default=True,
    help="arithmetic of the steps",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    help="to measure, about; building the graphs comes on top",
)
@click.option(
    "--storage",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    show_default=True,
    help="a folder that is there, on the filesystem that holds the data; files are written to it"
    " and removed",
)
@click.option(
    "--files", type=click.IntRange(4), default=64, show_default=True, help="that a rank writes"
)
def calibrate(
    output: Path,
    model: str,
    image_size: int,
    batch_sizes: tuple[int, ...],
    precisions: tuple[str, ...],
    seconds: float,
    storage: Path,
    files: int,
) -> None:
    """Measure this allocation for `ba-dist plan`; one rank or under mpirun.

    Step time by batch and precision, decoding and augmenting on a core, messages inside and between
    nodes, storage for one node and for all, and how much each of them varies.

    \b
    ba-dist calibrate --output here.toml --storage /path/of/data
    launch/mpirun.sh -n 4 -- calibrate --output here.toml --model resnet44 --image-size 32
    srun ... ba-dist calibrate --precisions fp32,bf16 --batch-sizes 8,64,128
    """
    from ba_dist import comm, runtime

    runtime.quiet()
    from ba_dist.calibration import Wishes, check_model
    from ba_dist.calibration import calibrate as measure
    from ba_dist.errors import ConfigError

    check_model(model)
    if wrong := [n for n in batch_sizes if n > 32 and n % 32]:
        raise ConfigError(f"--batch-sizes {wrong[0]} must divide by the ghost batch of 32")
    wishes = Wishes(model, image_size, batch_sizes, precisions, seconds, storage, files)
    text = measure(wishes, output)
    comm.leave_together(f"{text}\nwritten: {output}", 0, sys.stdout)
