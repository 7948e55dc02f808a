"""Networks of people's own: `module:function` or `file.py:function` where a name would stand.

def network(image_shape, classes, norm):
    images = keras.Input(image_shape)
    x = keras.layers.Conv2D(32, 3, use_bias=False)(images)
    x = keras.layers.ReLU()(norm()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(classes)(x))
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ba_dist import own_code
from ba_dist.errors import ConfigError

_ASKED = ("image_shape", "classes", "norm")


def is_own(name: str) -> bool:
    """Whether a name means a function of somebody's own."""
    return ":" in name


def check(name: str) -> None:
    """Looks whether the file or module is there, without running any of it.

    Raises:
        ConfigError: saying where it was looked for.
    """
    _find(name, _folders(None))


def build(name: str, home: Path | None, **facts: Any) -> Any:
    """The model that somebody's function makes, checked.

    Args:
        name: `module:function` or `file.py:function`.
        home: the folder that a run was started in; looked in before the current one.
        facts: `image_shape` (H, W, C), `classes` and `norm`; the function gets those that it asks
            for by name.

    Returns:
        A Keras model: images [n, H, W, C] → logits [n, classes].

    Raises:
        ConfigError: when it cannot be imported or called, or gives something else.
    """
    folders = _folders(home)
    _find(name, folders)
    with _importable(folders), _told(name):
        function = _function(name, folders)
        given = {key: facts[key] for key in _asked_by(function, name)}
        _count_names_anew()
        model = function(**given)
    _check_model(model, name, facts["image_shape"], facts["classes"])
    return model


def _folders(home: Path | None) -> list[Path]:
    return [folder for folder in (home, Path.cwd()) if folder is not None]


def _find(name: str, folders: list[Path]) -> Path | None:
    """The file of a name, None for a module."""
    source, _, function = name.rpartition(":")
    if not source or not function.isidentifier():
        raise ConfigError(
            f"--model {name!r} is no function; expected MODULE:FUNCTION or FILE.py:FUNCTION"
        )
    where = " or ".join(dict.fromkeys(map(str, folders)))
    if source.endswith(".py"):
        for folder in folders:
            if (path := folder / source).is_file():
                return path.resolve()
        raise ConfigError(f"--model {name}: there is no file {source} in {where}")
    with _importable(folders):
        # Of a package inside of a package only the outer one: finding more would run it.
        top = source.split(".")[0]
        if not top.isidentifier() or importlib.util.find_spec(top) is None:
            raise ConfigError(
                f"--model {name}: there is no module {source}, neither installed nor in {where};"
                " a file is named with its .py"
            )
    return None


def _function(name: str, folders: list[Path]) -> Callable[..., Any]:
    source, _, function = name.rpartition(":")
    path = _find(name, folders)
    module = importlib.import_module(source) if path is None else own_code.run_file(path)
    found: Any = getattr(module, function, None)
    if not callable(found):
        raise ConfigError(f"--model {name}: {source} has no function {function}")
    return found


def _asked_by(function: Callable[..., Any], name: str) -> list[str]:
    """Which of the facts a function takes by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return list(_ASKED)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return list(_ASKED)
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    if others := [parameter for parameter in needed if parameter not in _ASKED]:
        raise ConfigError(
            f"--model {name}: the function asks for {', '.join(others)}; it is given"
            f" {', '.join(_ASKED)} by name, and other parameters need a default"
        )
    return [key for key in _ASKED if key in named]


@contextmanager
def _importable(folders: list[Path]) -> Iterator[None]:
    """Modules are found in these folders too, as `python -m` finds those of the current one."""
    added = [str(folder) for folder in folders]
    sys.path[:0] = added
    try:
        yield
    finally:
        for folder in added:
            if folder in sys.path:  # somebody's module may have changed it
                sys.path.remove(folder)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Whatever goes wrong in somebody's code becomes one message, with the line."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        place = own_code.place_of(error)
        where = f" in {place}" if place else ""
        raise ConfigError(f"--model {name} failed{where}: {own_code.told(error)}") from None


def _count_names_anew() -> None:
    """Keras counts layers without a name over the whole process; a checkpoint knows the names."""
    import keras

    policy = keras.config.dtype_policy()
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy(policy)


def _check_model(model: Any, name: str, image_shape: Any, classes: int) -> None:
    import keras

    if not isinstance(model, keras.Model):
        raise ConfigError(f"--model {name} gives {type(model).__name__}; expected a keras.Model")
    with _told(name):
        answers = model(keras.KerasTensor((None, *image_shape)))  # also builds it
    taken = getattr(model, "input_shape", None) or (None, *image_shape)
    if not all(a in (None, b) for a, b in zip(taken, (None, *image_shape), strict=True)):
        raise ConfigError(f"--model {name} takes {taken}; the images are {(None, *image_shape)}")
    shape = getattr(answers, "shape", None)
    if shape != (None, classes):
        found = type(answers).__name__ if shape is None else shape
        raise ConfigError(
            f"--model {name} gives {found} for images {(None, *image_shape)}; expected logits"
            f" {(None, classes)}"
        )
    if _ends_in_softmax(model, keras):
        raise ConfigError(
            f"--model {name} ends in a softmax; expected logits, what goes into the softmax"
        )
    paths = [variable.path for variable in model.variables]
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise ConfigError(
            f"--model {name} has two variables named {twice[0]}; give its layers names of their own"
        )
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if problem := _problem_of(layer, keras):
            raise ConfigError(f"--model {name}: layer {layer.name} {problem}")


def _ends_in_softmax(model: Any, keras: Any) -> bool:
    """As far as it can be seen from outside: in the last layer."""
    last = model.layers[-1] if model.layers else None
    activation = getattr(last, "activation", None)
    return isinstance(last, keras.layers.Softmax) or activation is keras.activations.softmax


def _problem_of(layer: Any, keras: Any) -> str:
    """Why the result of a network with this layer would depend on the number of ranks."""
    if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
        return (
            "is a BatchNormalization, whose result depends on the number of ranks; use the `norm`"
            " that the function is given in its place, or freeze it (trainable = False)"
        )
    if not layer._layers and any(v.path.endswith("generator_state") for v in layer.variables):
        return (
            "draws random numbers that depend on the number of ranks; use"
            " ba_dist.models.layers.dropout.InstanceDropout, or the augmentations of a recipe"
        )
    return ""
