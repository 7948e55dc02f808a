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
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ba_dist import own_code
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
    # Behind all others: modules beside the file are found, but none takes the name of a package.
    sys.path.append(str(path.parent))
    with _told(shown):
        return own_code.run_file(path)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever goes wrong in somebody's code becomes one message, with its line."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{_where(what, error)}: {error}") from None
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{_where(what, error)}: {own_code.told(error)}") from None


def _where(what: str, error: BaseException) -> str:
    place = own_code.place_of(error)
    return f"{what}, {place}" if place else what


def _module_of(value: Any) -> str:
    return getattr(value, "__module__", "") if callable(value) else ""
