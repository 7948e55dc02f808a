"""Recipes of people's own: `FILE.py:FUNCTION` where the name of a recipe would stand.

    # my_recipes.py
    import dataclasses
    from ba_dist import recipe

    def longer():
        '''Quickstart for 20 epochs.'''
        config = recipe("quickstart")
        return dataclasses.replace(config, run=dataclasses.replace(config.run, epochs=20))

A run of it is called by the function's name, whatever `Config.recipe` says.
"""

import dataclasses
import hashlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ba_dist.config import Config
from ba_dist.errors import ConfigError


def is_own(name: str) -> bool:
    """Whether a name means a function in a file."""
    return ".py:" in name


def absolute(name: str) -> str:
    """The same name, from wherever it is called."""
    file, _, function = name.rpartition(":")
    return f"{Path(file).absolute()}:{function}"


def function_of(name: str) -> Callable[[], Any]:
    """The function that a name means; its file is run once.

    Raises:
        ConfigError: when there is no such file or function, or the file does not run, with the
            line.
    """
    file, _, function = name.rpartition(":")
    module = _run(Path(file).absolute(), file)
    found: Any = getattr(module, function, None)
    if not callable(found):
        own = [n for n, v in vars(module).items() if _module_of(v) == module.__name__]
        there = ", ".join(own) or "none"
        raise ConfigError(f"{file} has no function {function!r}; it has {there}")
    made: Callable[[], Any] = found
    return made


def config_of(name: str) -> Config:
    """The configuration that somebody's function gives.

    Raises:
        ConfigError: when it fails, with the line, or gives something else.
    """
    function = function_of(name)
    with _told(name):
        config = function()
    if not isinstance(config, Config):
        raise ConfigError(f"{name} gives {type(config).__name__}; expected a ba_dist.Config")
    return dataclasses.replace(config, recipe=name.rpartition(":")[2])


@cache
def _run(path: Path, shown: str) -> ModuleType:
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the file {shown} of the recipe cannot be read: {error.strerror}"
        ) from None
    name = f"_recipes_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module there
    # Behind all others: modules beside the file are found, but none takes the name of a package.
    sys.path.append(str(path.parent))
    with _told(shown):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever goes wrong in somebody's code becomes one message, with its line."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{what}{_line(error)}: {error}") from None
    except (Exception, SystemExit) as error:
        text = error.msg if isinstance(error, SyntaxError) else f"{error}"
        raise ConfigError(f"{what}{_line(error)}: {type(error).__name__}: {text}") from None


def _module_of(value: Any) -> str:
    return getattr(value, "__module__", "") if callable(value) else ""


def _line(error: BaseException) -> str:
    """Where somebody's code failed: its last line, not one of a package or of this house."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    house, python = str(Path(__file__).parents[1]), sysconfig.get_path("stdlib")
    others = (house, python, "site-packages", "<")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(part in frame.filename for part in others)]
    return f", {own[-1].filename}, line {own[-1].lineno}" if own else ""
