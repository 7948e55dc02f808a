"""The `ba-dist` command. Imports what a subcommand needs when it runs, so that --help is quick."""

import errno
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from ba_dist import __version__
from ba_dist.cli.flags import RecipeCommand, config_flags, given
from ba_dist.config import layout_of, options, override
from ba_dist.errors import ConfigError, UserError
from ba_dist.recipes import RECIPES, recipe, summary

_RUN = click.argument("run", type=click.Path(path_type=Path))
_AUGMENTATIONS = "augmentations"
_DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ba-dist")
def cli() -> None:
    """Distributed batch augmentation on TensorFlow and Horovod/MPI.

    Every group of ranks trains on the same samples, each rank on its own augmented copies of them.

    \b
    A first run:     launch/mpirun.sh -n 2 -- train quickstart --multiplicity 2
    On a cluster:    ba-dist submit quickstart --site gpu --nodes 2
    What it needs:   ba-dist doctor
    """


@cli.command(cls=RecipeCommand)
@click.argument("name", metavar="RECIPE")
@click.option(
    "--inject", default="", hidden=True, help="faults to test with: ba_dist/health/inject.py"
)
@config_flags
def train(name: str, inject: str, **flags: Any) -> None:
    """Train RECIPE (`ba-dist recipes` lists them), with any of its values changed by a flag.

    \b
    ba-dist train quickstart --help           shows the values of that recipe
    ba-dist train quickstart --steps 5        a very short run on one rank
    launch/mpirun.sh -n 4 -- train quickstart --multiplicity 4 --run-dir runs/first
    """
    config = override(recipe(name), given(flags))
    from ba_dist import comm, runtime
    from ba_dist.health.inject import parse
    from ba_dist.run.report import table
    from ba_dist.train import RUN_AGAIN
    from ba_dist.train import train as run

    runtime.quiet()
    outcome = run(config, parse(inject))
    if outcome.summary is None:
        comm.leave_together(
            f"stopped on request after step {outcome.step}; the same command with"
            f" --run-dir {outcome.run_dir} goes on from there",
            RUN_AGAIN,
            sys.stdout,
        )
    _say_once(table(outcome.summary, outcome.task, outcome.run_dir))


@cli.command(cls=RecipeCommand)
@click.argument("name", metavar="RECIPE")
@click.option("--site", required=True, help="a job script of slurm/: gpu, cpu, cray-xc …")
@click.option("--nodes", required=True, type=click.IntRange(1), help="nodes of the job")
@click.option("--ranks-per-node", type=click.IntRange(1), help="default as the site's script says")
@click.option("--cpus-per-task", type=click.IntRange(1), help="processors of a rank")
@click.option("--time", help="limit of one start, as HH:MM:SS or D-HH; the job goes on after it")
@click.option("--account", help="who pays")
@click.option("--partition", help="nodes to choose from; several are separated by commas")
@click.option("--qos", help="quality of service")
@click.option("--constraint", help="features that the nodes must have")
@click.option("--job-name", help="default RECIPE")
@click.option("--dry-run", is_flag=True, help="print the job script and do nothing")
@config_flags
def submit(
    name: str, site: str, nodes: int, ranks_per_node: int | None, dry_run: bool, **flags: Any
) -> None:
    """Submit the training of RECIPE to Slurm, with the job script of a site and flags of `train`.

    The script is written to the run directory; `sbatch` takes it again by hand. A job that is
    preempted, or whose time is over, saves its state, queues again and goes on: docs/cluster.md.

    \b
    ba-dist submit quickstart --site cpu --nodes 2 --dry-run
    ba-dist submit resnet50-imagenet --site gpu --nodes 4 --time 12:00:00 --account ACCOUNT \\
        --data-dir DIR --multiplicity 4
    """
    from ba_dist.cluster import job_script
    from ba_dist.cluster import submit as slurm

    wishes = {key: flags.pop(key) for key in job_script.WISHES}
    changes = given(flags)
    config = override(recipe(name), changes)
    template = slurm.template(site)
    ranks = ranks_per_node or job_script.ranks_per_node(template)
    layout = layout_of(config, nodes * ranks)
    job = job_script.Job(
        site, template, name, nodes, ranks, given(wishes), changes, **slurm.job_paths(config)
    )
    text = job_script.render(job)
    if dry_run:
        click.echo(text, nl=False)
        return
    click.echo(slurm.submit(job, text, layout))


@cli.command("eval")
@_RUN
def evaluate(run: Path) -> None:
    """Evaluate the newest checkpoint of RUN on the validation samples."""
    from ba_dist import runtime

    runtime.quiet()
    from ba_dist.evaluate_run import evaluate_run

    step, result = evaluate_run(run)
    _say_once(f"step {step}  val_top1 {result['val_top1']:.2%}  val_loss {result['val_loss']:.4f}")


@cli.group()
def data() -> None:
    """Bring data to this machine before training needs it."""


_DATA_DIR = click.option("--data-dir", help="where the data is, or is to be prepared")


@data.command("prepare")
@click.argument("name")
@_DATA_DIR
def data_prepare(name: str, data_dir: str | None) -> None:
    """Prepare the dataset NAME once (on the login node, where there is a network).

    Small datasets become arrays, TFRecord shards get their index, datasets of TensorFlow Datasets
    are downloaded; images that are there are looked at. For fashion_mnist a Debian package is
    installed where there is no other way; training itself installs nothing.
    """
    from ba_dist.config import Data
    from ba_dist.data.catalog.find import find
    from ba_dist.data.catalog.prepare import INFOS, prepare

    if name in INFOS or name.startswith("synthetic"):
        prepared = prepare(name, data_dir, install=True)
        click.echo(f"{name}: ready in {prepared.folder}, from {prepared.origin}")
        return
    found = find(Data(dataset=name, data_dir=data_dir))
    counts = [found.splits[split].count for split in ("train", "validation")]
    click.echo(
        f"{name}: ready, {found.origin}; {counts[0]} samples to train on, {counts[1]} to evaluate"
    )


@data.command("index")
@click.argument("name")
@_DATA_DIR
def data_index(name: str, data_dir: str | None) -> None:
    """Make the index of NAME's TFRecord shards, which reading at random needs, anew.

    Every shard is read once and every checksum is checked. Training makes the index itself where
    there is none, but then all ranks wait for it.
    """
    from ba_dist.config import Data
    from ba_dist.data.catalog.find import index, shards_of
    from ba_dist.data.sources import shard_index

    found = shards_of(Data(dataset=name, data_dir=data_dir))
    for split, shards in found.files.items():
        made, corrupt = index(found, split)
        for line in corrupt:
            click.echo(line)
        place = shard_index.save(made, shards)
        click.echo(f"{place}: {len(made.columns['label'])} records in {len(shards)} shards")


@data.command("verify")
@click.argument("name")
@_DATA_DIR
def data_verify(name: str, data_dir: str | None) -> None:
    """Read and decode every sample of NAME; list the corrupt ones; exit with 1 if there are any."""
    from ba_dist import runtime
    from ba_dist.config import Data
    from ba_dist.data.catalog.find import find, open_split
    from ba_dist.data.catalog.verify import verify

    found = find(Data(dataset=name, data_dir=data_dir))
    corrupt, total = 0, 0
    for name_of_split, split in found.splits.items():
        source = open_split(found.info, split)
        corrupt += verify(source, runtime.cores(), name_of_split, click.echo)
        total += len(source)
    click.echo(f"{total} samples of {name}, {corrupt or 'none'} corrupt; from {found.origin}")
    sys.exit(1 if corrupt else 0)


@data.command("list")
def data_list() -> None:
    """List the datasets."""
    from ba_dist.data.catalog.prepare import INFOS

    for info in INFOS.values():
        height, width, channels = info.image_shape
        click.echo(f"{info.name:14} {height}x{width}x{channels}  {info.classes} classes")
    click.echo("imagenet       images in --data-dir: a folder per class, TFRecord shards, or TFDS")
    click.echo("pictures       any others: a folder per class, or TFRecord shards, in --data-dir")
    click.echo("synthetic      any size (--image-size), made as it is read")
    click.echo("synthetic-jpeg JPEGs of 500x375, made in memory")
    click.echo("NAME           any classification of images in TensorFlow Datasets")


@cli.command()
@click.argument("name", required=False)
def recipes(name: str | None) -> None:
    """List the recipes, or show every value of the recipe NAME."""
    if name is None:
        for known in RECIPES:
            click.echo(f"{known:20} {summary(known)}")
        return
    config = recipe(name)
    click.echo(summary(name))
    for option in options():
        value = option.of(config)
        shown = "-" if value is None else option.text(value)
        click.echo(f"  {option.flag:22} {shown:18} {option.help}")


@cli.command()
@_RUN
@click.option("--output", type=click.Path(path_type=Path), required=True, help="FILE.npz to write")
def export(run: Path, output: Path) -> None:
    """Write every variable of RUN's newest checkpoint under its own name, as numpy arrays."""
    from ba_dist.analysis.export import export as write

    step, count = write(run, output)
    click.echo(f"{output}: {count} variables of step {step}")


class _PlotCommand(click.Command):
    """`plot augmentations …` is a command of its own; any other first word is a run."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args[:1] == [_AUGMENTATIONS]:
            name = f"{info_name} {_AUGMENTATIONS}"
            return plot_augmentations.make_context(name, args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@cli.command(cls=_PlotCommand)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="default RUN/curves.png")
def plot(runs: tuple[Path, ...], output: Path | None) -> None:
    """Draw loss, accuracy, learning rate and gradient norm of one or more RUNS as a PNG.

    \b
    ba-dist plot runs/first runs/second      the curves of two runs
    ba-dist plot augmentations quickstart    what a recipe makes of its samples; see its own --help
    """
    from ba_dist.reports.plots import plot_runs

    click.echo(plot_runs(list(runs), output or runs[0] / "curves.png"))


@click.command(cls=RecipeCommand)
@click.argument("name", metavar="RECIPE")
@click.option(
    "--output", type=click.Path(path_type=Path), help="default augmentations-RECIPE.png, here"
)
@config_flags
def plot_augmentations(name: str, output: Path | None, **flags: Any) -> None:
    """Draw the augmented copies of a few samples of RECIPE beside each other as a PNG.

    They are those of the first step of training, with any value of the recipe changed by a flag.

    \b
    ba-dist plot augmentations quickstart --multiplicity 8
    ba-dist plot augmentations resnet44-cifar10 --auto-augment cifar10 --data-dir data
    """
    config = override(recipe(name), given(flags))
    from ba_dist import runtime

    runtime.quiet()
    from ba_dist.data.catalog import open_source
    from ba_dist.reports.copies import plot_copies

    source = open_source(config.data, "train")
    click.echo(plot_copies(config, source, output or Path(f"augmentations-{name}.png")))


@cli.command()
@_RUN
@click.option(
    "--render", type=click.IntRange(1), help="ghost batches to render anew from data and key"
)
@click.option("--no-render", is_flag=True, help="check everything but the pixels, without the data")
def audit(run: Path, render: int | None, no_render: bool) -> None:
    """Check from the trace of RUN that every invariant of batch augmentation held.

    Ghost batches spread over the run (64, unless --render says otherwise) are made anew from the
    data and compared pixel by pixel; so the data must be here, as it was for training.
    """
    from ba_dist import runtime

    runtime.quiet()
    from ba_dist.analysis.audit import RENDERED
    from ba_dist.analysis.audit import audit as check

    if render and no_render:
        raise click.UsageError("--render and --no-render contradict each other")
    wanted = 0 if no_render else render or RENDERED
    steps, problems = check(run, wanted, lambda text: click.echo(f"note: {text}"))
    for problem in problems[:20]:
        click.echo(problem)
    unchecked = "; pixels were not checked" if no_render else ""
    if problems:
        click.echo(f"{len(problems)} problem(s) in {steps} steps{unchecked}")
        sys.exit(1)
    click.echo(f"clean: {steps} steps, every invariant held{unchecked}")


@cli.command()
@click.option("--data-dir", help="the data directory to look at")
def doctor(data_dir: str | None) -> None:
    """Look at this machine (under mpirun: at all ranks) and say what is missing."""
    from ba_dist import comm, runtime

    runtime.quiet()
    from ba_dist.doctor import examine

    text, healthy = examine(data_dir)
    comm.leave_together(text, 0 if healthy else 1, sys.stdout)


def _say_once(text: str) -> None:
    """Prints on rank 0."""
    from ba_dist.comm import ranks

    launch = ranks()
    if launch is None or launch.rank == 0:
        click.echo(text)


def main() -> None:
    """Runs the command; a person's mistake becomes one message, once, on all ranks together."""
    try:
        cli.main(prog_name="ba-dist", standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except (click.Abort, KeyboardInterrupt, click.ClickException, UserError, OSError) as error:
        _end(error)


def _end(error: BaseException) -> NoReturn:
    # Imported only now, because it brings numpy, which takes longer than all else of --help.
    from ba_dist import comm

    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        # Leaving by MPI's own end would wait for the others, and for threads that are inside MPI.
        if comm.joined():
            comm.end_job("interrupted", 130)
        sys.exit(130)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        comm.leave_together(error.format_message(), 2, sys.stderr)
    if isinstance(error, click.ClickException):
        hint = "\nTry `ba-dist --help`, or --help behind a subcommand."
        comm.leave_together(f"ba-dist: {error.format_message()}{hint}", 2, sys.stderr)
    if isinstance(error, UserError):
        status = 2 if isinstance(error, ConfigError) else 1
        if error.agreed or comm.ranks() is None:
            comm.leave_together(f"ba-dist: {error}", status, sys.stderr)
        comm.end_job(f"{error}", status)
    if isinstance(error, OSError) and error.errno in _DISK_TROUBLE:
        text = f"{error}. What was saved before is still there: make room and call it again"
        comm.end_job(text, 1)
    raise error
