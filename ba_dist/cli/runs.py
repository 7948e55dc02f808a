"""`ba-dist eval`, `predict`, `translate`, `export`, `audit`: what is done with a run directory."""

import sys
from pathlib import Path
from typing import Literal

import click

from ba_dist.cli.saying import say_once

RUN = click.argument("run", type=click.Path(path_type=Path))


CHECKPOINT = click.option(
    "--checkpoint",
    "which",
    default="newest",
    show_default=True,
    metavar="newest|best|STEP",
    help="which of the run's checkpoints; best needs a run with --keep-best",
)
DATA_DIR = click.option(
    "--data-dir", help="where the data is now; default where it was in training"
)


@click.command("eval")
@RUN
@CHECKPOINT
@DATA_DIR
@click.option("--per-class", is_flag=True, help="also the samples and answers of each class")
@click.option(
    "--bleu-pairs",
    type=click.IntRange(0),
    metavar="N",
    help="of a network that translates: BLEU on N sentence pairs; default all, 0 for none",
)
@click.option(
    "--tta",
    type=click.IntRange(1),
    metavar="N",
    help="also the mean answer over N augmented copies of each sample, as the recipe augments them"
    " (but without mixup and CutMix); the paper's table 4 has 10",
)
@click.option(
    "--tta-average",
    type=click.Choice(["probabilities", "logits"]),
    help="what is averaged over the copies; default probabilities",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def evaluate(
    run: Path,
    which: str,
    data_dir: str | None,
    per_class: bool,
    bleu_pairs: int | None,
    tta: int | None,
    tta_average: Literal["probabilities", "logits"] | None,
    as_json: bool,
) -> None:
    """Evaluate a checkpoint of RUN on the validation samples, on any number of ranks.

    \b
    ba-dist eval runs/first --per-class
    launch/mpirun.sh -n 4 -- eval runs/first --checkpoint best --json
    ba-dist eval runs/first --tta 10      test-time augmentation, beside the plain samples

    The copies follow from the run's seed, the sample and the copy: the same on any number of ranks.
    """
    if tta_average and tta is None:
        raise click.UsageError("--tta-average needs --tta N: how many copies are averaged")
    from ba_dist import runtime

    runtime.quiet()
    from ba_dist.evaluate_run import evaluate_run
    from ba_dist.run.run_dir import to_json

    result = evaluate_run(
        run,
        which,
        data_dir,
        classes=per_class,
        bleu_pairs=bleu_pairs,
        tta=tta,
        tta_average=tta_average or "probabilities",
    )
    if as_json:
        say_once(to_json({"run": str(run), "checkpoint": which, **result.as_dict()}))
        return
    say_once(result.line())
    if result.bleu is not None:
        say_once(result.bleu_line())
    if result.tta is not None:
        say_once(result.tta_lines())
    if result.counts is not None:
        from ba_dist.rules.confusion import table

        say_once(table(result.counts, result.class_names))


@click.command()
@RUN
@CHECKPOINT
@click.option("--output", required=True, help="FILE.npz, FILE.keras or FOLDER/ to write")
@click.option(
    "--format",
    "form",
    type=click.Choice(["npz", "keras", "savedmodel"]),
    help="default as the ending of --output tells",
)
def export(run: Path, which: str, output: str, form: str | None) -> None:
    """Write the network of a checkpoint of RUN for other programs, or its weights alone.

    \b
    ba-dist export runs/first --output weights.npz    every variable under its own name, for numpy
    ba-dist export runs/first --output first.keras    the network, for Keras
    ba-dist export runs/first --output first/         the network, as a SavedModel

    The network takes pixels 0 … 255 and gives logits; it loads where ba_dist is not installed.
    """
    from ba_dist import runtime

    runtime.quiet()
    from ba_dist.analysis.export import export as write

    click.echo(write(run, output, which, form))


@click.command()
@RUN
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@CHECKPOINT
@click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="classes to tell")
@click.option("--json", "as_json", is_flag=True, help="print a JSON object for each image")
def predict(run: Path, images: tuple[Path, ...], which: str, top: int, as_json: bool) -> None:
    """Tell the class of IMAGES, files or folders of them, as a checkpoint of RUN sees it.

    They are brought to the size of the network as in evaluation. One that cannot be read is told,
    the others go on, and the exit status is then 1.
    """
    from ba_dist import runtime, trained

    runtime.quiet()
    from ba_dist.predict import Predictor, best, image_files
    from ba_dist.run.run_dir import to_json

    paths = image_files(images)
    predictor = Predictor(trained.load(run, which))
    failed = 0
    for path, logits in predictor.files(paths):
        if isinstance(logits, Exception):
            failed += 1
            click.echo(f"{path}: {logits}", err=True)
            continue
        found = best(logits, predictor.trained.class_names, top)
        if as_json:
            click.echo(to_json({"image": str(path), "step": predictor.trained.step, "top": found}))
            continue
        told = (
            f"{row['class']}{' ' + row['name'] if row['name'] else ''} {row['probability']:.1%}"
            for row in found
        )
        click.echo(f"{path}  {'  '.join(told)}")
    if failed:
        click.echo(f"{failed} of {len(paths)} images could not be read", err=True)
        sys.exit(1)


@click.command()
@RUN
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@CHECKPOINT
def translate(run: Path, files: tuple[Path, ...], which: str) -> None:
    """Translate the lines of text FILES, or of standard input, as a checkpoint of RUN does it.

    \b
    ba-dist translate runs/first sentences.txt > translations.txt
    echo "No such file" | ba-dist translate runs/first
    """
    from ba_dist import runtime, trained

    runtime.quiet()
    from ba_dist.data.text.lines import read_lines
    from ba_dist.translate import translate_lines

    if files:
        lines = [line for path in files for line in read_lines(path)]
    else:
        lines = [line.rstrip("\r\n") for line in sys.stdin]
    for text in translate_lines(trained.load(run, which), lines):
        click.echo(text)


@click.command()
@RUN
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
