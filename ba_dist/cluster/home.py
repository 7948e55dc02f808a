"""Where the scripts that start ranks and jobs are: in the clone, or in the installed package."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "_scripts"  # made by setup.py
# The folder that holds launch/ and slurm/.
HOME = _INSTALLED if _INSTALLED.exists() else _PACKAGE.parent
