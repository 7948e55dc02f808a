"""The folders for data on this machine."""

import os
from pathlib import Path

from ba_dist.errors import DataError

DATA_VARIABLE = "BA_DIST_DATA"


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/ba_dist`, by default under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ba_dist"


def data_dir(given: str | None) -> Path | None:
    """The folder for data: `--data-dir`, else the environment variable, else None."""
    named = given or os.environ.get(DATA_VARIABLE)
    return Path(named).expanduser().resolve() if named else None


def check_data_dir(path: Path) -> None:
    """Refuses what cannot be a folder for data.

    Raises:
        DataError: saying whether it is missing, a file, or may not be read.
    """
    try:
        if path.is_dir():
            if os.access(path, os.R_OK | os.X_OK):
                return
            problem = "may not be read by you; change its permissions or name another"
        elif path.exists():
            problem = "is a file; name a folder"
        else:
            problem = "is not there; make it or name another"
    except PermissionError:
        problem = "is in a folder that may not be read by you; name another"
    raise DataError(f"the data directory {path} {problem}")
