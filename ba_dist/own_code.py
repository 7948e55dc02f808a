"""Code of people's own, which `FILE.py:FUNCTION` names: how it is run, and where it is wrong."""

import hashlib
import importlib.util
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType

_HOUSE, _PYTHON = str(Path(__file__).parent), sysconfig.get_path("stdlib")


def run_file(path: Path) -> ModuleType:
    """Runs a file whose name ends in .py, as a module that no other name can take the place of."""
    name = f"_own_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


def told(error: BaseException) -> str:
    """An error of somebody's code in one line: its kind and what it says."""
    text = error.msg if isinstance(error, SyntaxError) else f"{error}"
    return f"{type(error).__name__}: {text}"


def place_of(error: BaseException) -> str:
    """`FILE, line N` of the last line that is neither of a package, of Python nor of this house.

    Empty where there is no such line.
    """
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _of_others(f.filename)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def _of_others(file: str) -> bool:
    return file.startswith((_HOUSE, _PYTHON, "<")) or "site-packages" in file
