"""The `ba-dist` command."""

from ba_dist.cli.commands import cli, main

__all__ = ["cli", "main"]
