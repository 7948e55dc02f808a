"""What every command prints with."""

import click


def is_first() -> bool:
    """Whether this is rank 0, or the only process."""
    from ba_dist.comm import ranks

    launch = ranks()
    return launch is None or launch.rank == 0


def say_once(text: str) -> None:
    """Prints on rank 0."""
    if is_first():
        click.echo(text)
