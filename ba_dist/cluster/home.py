"""Where the scripts that start ranks and jobs are: in the clone, or in the installed package."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "_scripts"  # made by setup.py
# The folder that holds launch/ and slurm/.
HOME = _INSTALLED if _INSTALLED.exists() else _PACKAGE.parent


def set_up(variable: str = "") -> str:
    """What to do where the environment lacks something, for a person: by `make`, or by hand.

    Args:
        variable: that `make` needs, such as `GPU=1`.
    """
    if HOME == _INSTALLED:
        return "see docs/install.md of the project"
    return f"{variable} make setup".strip()
