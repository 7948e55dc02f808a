"""What every command prints with."""

import click


def say_once(text: str) -> None:
    """Prints on rank 0."""
    from ba_dist.comm import ranks

    launch = ranks()
    if launch is None or launch.rank == 0:
        click.echo(text)
