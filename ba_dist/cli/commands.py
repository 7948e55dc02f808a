"""The `ba-dist` command. Imports what a subcommand needs when it runs, so that --help is quick."""

import errno
import os
import sys
from typing import NoReturn

import click

from ba_dist import __version__
from ba_dist.cli import (
    analyze,
    calibrate,
    data,
    launch,
    look,
    plan,
    plot,
    reports,
    runs,
    sweep,
    train,
)
from ba_dist.errors import ConfigError, UserError, reason

# What a person can repair in a path that was given.
_PATH_TROUBLE = (
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.ETXTBSY),
)
_DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ba-dist")
def cli() -> None:
    """Distributed batch augmentation on TensorFlow and Horovod/MPI.

    Every group of ranks trains on the same samples, each rank on its own augmented copies of them.

    \b
    A first run:     ba-dist run -n 2 -- train quickstart --multiplicity 2
    On a cluster:    ba-dist submit quickstart --site gpu --nodes 2
    What it needs:   ba-dist doctor
    """


for command in (
    *(train.train, launch.run, plan.plan, train.submit, sweep.sweep, runs.evaluate, data.data),
    *(calibrate.calibrate, look.recipes, runs.export, runs.predict, runs.translate, plot.plot),
    *(analyze.analyze, reports.compare, reports.report, runs.audit, look.doctor),
):
    cli.add_command(command)


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
        ctx = getattr(error, "ctx", None)
        hint = f"\nTry `{ctx.command_path if ctx else 'ba-dist'} --help`."
        comm.leave_together(f"ba-dist: {error.format_message()}{hint}", 2, sys.stderr)
    if isinstance(error, UserError):
        status = 2 if isinstance(error, ConfigError) else 1
        if error.agreed or comm.ranks() is None:
            comm.leave_together(f"ba-dist: {error}", status, sys.stderr)
        comm.end_job(f"{error}", status)
    if isinstance(error, OSError) and error.errno in _DISK_TROUBLE:
        where = f" ({error.filename})" if error.filename else ""
        what = f"{reason(error)}{where}. What was saved before is still there"
        comm.end_job(f"{what}: make room and call it again", 1)
    if isinstance(error, OSError) and error.errno in _PATH_TROUBLE and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {(error.strerror or 'cannot be used').lower()}"
        if comm.ranks() is None:
            comm.leave_together(f"ba-dist: {text}", 1, sys.stderr)
        comm.end_job(text, 1)
    raise error
