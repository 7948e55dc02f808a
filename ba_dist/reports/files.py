"""The files that reports are written to: their names, and which of them may be replaced."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from ba_dist.errors import UserError, reason

_NAMED = 3  # runs that the name of a file has


def default_output(runs: Sequence[Path], name: str) -> Path:
    """`RUN/NAME.png` of one run; `NAME-RUN-RUN.png`, here, of several.

    Args:
        runs: run directories.
        name: of the file of one run.
    """
    if len(runs) == 1:
        return runs[0] / name
    kind = Path(name)
    names = [run.resolve().name for run in runs]
    more = [f"and-{len(names) - _NAMED}-more"] if len(names) > _NAMED else []
    return Path("-".join([kind.stem, *(n[:60] for n in names[:_NAMED]), *more]) + kind.suffix)


def mark_of(kind: str, runs: Sequence[Path], output: Path) -> str:
    """Tells files of these runs from others, also after all of it has moved together.

    Args:
        kind: what the file is: plot, report.
        runs: run directories.
        output: the file.
    """
    paths = [os.path.relpath(run.resolve(), output.resolve().parent) for run in runs]
    return f"ba-dist {kind} " + hashlib.sha256("\n".join(paths).encode()).hexdigest()[:16]


def check_picture(output: Path) -> None:
    """Refuses a format that keeps no mark.

    Args:
        output: the file.

    Raises:
        UserError: when it does not end in .png, .svg or .pdf.
    """
    if output.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UserError(f"--output {output}: expected a file that ends in .png, .svg or .pdf")


def check_replaceable(output: Path, mark: str, kind: str) -> None:
    """Refuses to write over a file that is not an earlier one of the same.

    Args:
        output: the file.
        mark: that an earlier one holds.
        kind: what the file is: plot, report.

    Raises:
        UserError: where another file is there, or one that cannot be read.
    """
    try:
        other = output.exists() and mark.encode() not in output.read_bytes()
    except OSError as error:
        raise UserError(f"the {kind} cannot be written: {reason(error)}") from None
    if other:
        raise UserError(
            f"{output} is there and is not a {kind} of the same; remove it, or choose another"
            " file by --output"
        )
