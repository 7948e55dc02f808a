"""`ba-dist eval`, `export`, `audit`: what is done with a run directory."""

import sys
from pathlib import Path

import click

from ba_dist.cli.saying import say_once

RUN = click.argument("run", type=click.Path(path_type=Path))


@click.command("eval")
@RUN
def evaluate(run: Path) -> None:
    """Evaluate the newest checkpoint of RUN on the validation samples."""
    from ba_dist import runtime

    runtime.quiet()
    from ba_dist.evaluate_run import evaluate_run

    step, result = evaluate_run(run)
    say_once(f"step {step}  val_top1 {result['val_top1']:.2%}  val_loss {result['val_loss']:.4f}")


@click.command()
@RUN
@click.option("--output", type=click.Path(path_type=Path), required=True, help="FILE.npz to write")
def export(run: Path, output: Path) -> None:
    """Write every variable of RUN's newest checkpoint under its own name, as numpy arrays."""
    from ba_dist.analysis.export import export as write

    step, count = write(run, output)
    click.echo(f"{output}: {count} variables of step {step}")


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
