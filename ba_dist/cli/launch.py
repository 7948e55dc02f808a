"""`ba-dist run`: launch/mpirun.sh, also where there is no clone."""

import os
import subprocess
import sys

import click


class _Script(click.Command):
    """A command whose words are those of launch/mpirun.sh, which explains them itself."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return []

    def get_help(self, ctx: click.Context) -> str:
        line, environment = call("--help")
        return subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True).stdout


@click.command(cls=_Script)
@click.pass_context
def run(ctx: click.Context) -> None:
    """Start ba-dist, or a Python script, on several ranks with this environment's mpirun."""
    own = ctx.args[: ctx.args.index("--")] if "--" in ctx.args else ctx.args
    if {"-h", "--help"} & set(own):
        click.echo(ctx.get_help())
        return
    line, environment = call(*ctx.args)
    os.execvpe(line[0], line, environment)


def call(*words: str) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of the script."""
    from ba_dist.cluster.home import HOME

    mine = {"BA_DIST_PYTHON": sys.executable, "BA_DIST_PROGRAM": "ba-dist run"}
    return ["bash", str(HOME / "launch" / "mpirun.sh"), *words], {**os.environ, **mine}
