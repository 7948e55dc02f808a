"""The folders for data on this machine."""

import os
from pathlib import Path

DATA_VARIABLE = "BA_DIST_DATA"


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/ba_dist`, by default under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ba_dist"


def data_dir(given: str | None) -> Path | None:
    """The folder for data: `--data-dir`, else the environment variable, else None."""
    named = given or os.environ.get(DATA_VARIABLE)
    return Path(named).expanduser().resolve() if named else None
