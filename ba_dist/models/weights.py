"""Weights to start from: read from files of numpy and Keras, and put into a network.

Nothing of a file is run: of a `.keras` file only the arrays are read, not the network beside them.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.errors import UserError, reason
from ba_dist.models.tags import INSTANCE, carries, layers

Arrays = dict[str, npt.NDArray[Any]]

# Names of keras.applications' ResNets, whose bottlenecks stride in their first 1x1 convolution.
_APPLICATIONS = "conv1_conv/"


class Unfit(UserError):
    """Weights that a network does not have, or has in another shape."""


def read(path: Path, model: Any) -> Arrays:
    """The arrays of a file, by the paths of the model's variables.

    Args:
        path: of `.npz` (as `ba-dist export` writes it), `.keras` or `.h5`.
        model: Keras model; files of Keras know only layers, whose variables it puts in order.

    Raises:
        UserError: when the file cannot be read.
    """
    if path.suffix not in READERS:
        raise UserError(f"{path} ends in none of {', '.join(READERS)}")
    try:
        return READERS[path.suffix](path, model)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, RuntimeError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from None


def digest(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of the names, types, shapes and bytes of arrays, as 64 hexadecimal digits."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def put(arrays: Arrays, model: Any) -> tuple[int, list[str]]:
    """Sets the variables of a network. Its head, the last layer that learns, may be another one.

    Args:
        arrays: path of a variable → value.
        model: Keras model, all of whose variables are set, but for those of a new head.

    Returns:
        How many were set, and the paths of those that keep their first value: the head's, where
        the number of classes differs or the arrays have no head.

    Raises:
        Unfit: naming the first variable that does not fit; then none was set.
    """
    wanted = {v.path: v for v in model.variables if _is_weight(v)}
    head = _head(model)
    new = head if any(_differs_in_classes(arrays.get(path), wanted[path]) for path in head) else []
    for path, variable in wanted.items():
        if path not in new:
            _check(path, arrays.get(path), variable)
    odd = sorted(path for path in arrays if path not in wanted)
    if odd:
        raise Unfit(f"only the file has {odd[0]}")
    taken = [path for path in wanted if path not in new]
    for path in taken:
        wanted[path].assign(arrays[path])
    return len(taken), new


def explain(arrays: Arrays) -> str:
    """More of why weights do not fit, where it is known."""
    if not any(path.startswith(_APPLICATIONS) for path in arrays):
        return ""
    return (
        ". The file is that of a ResNet of keras.applications: its convolutions have biases, its"
        " bottlenecks stride in the first 1x1 convolution (ours in the 3x3 one), and it takes"
        " other pixels; docs/runs.md shows how to train that network itself"
    )


# --- the head -------------------------------------------------------------------------------------


def _head(model: Any) -> list[str]:
    learning = [layer for layer in layers(model) if not layer._layers and layer.trainable_variables]
    return [variable.path for variable in learning[-1].variables] if learning else []


def _differs_in_classes(array: Any, variable: Any) -> bool:
    shape = tuple(variable.shape)
    return array is None or (array.shape != shape and array.shape[:-1] == shape[:-1])


def _check(path: str, array: Any, variable: Any) -> None:
    if array is None:
        raise Unfit(f"only the network has {path}")
    if array.shape != tuple(variable.shape):
        raise Unfit(f"{path} is {array.shape} in the file, {tuple(variable.shape)} in the network")
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        raise Unfit(f"{path} holds something else than finite numbers")


def _is_weight(variable: Any) -> bool:
    """Not the rows of a training's instances, not the integers of random generators."""
    return str(variable.dtype).startswith("float") and not carries(variable, INSTANCE)


# --- one function for each kind of file -----------------------------------------------------------


def _npz(path: Path, model: Any) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    return {name: array for name, array in found.items() if array.dtype.kind == "f"}


def _keras(path: Path, model: Any) -> Arrays:
    with zipfile.ZipFile(path) as file:
        content = file.read("model.weights.h5")
    return _hdf5(io.BytesIO(content), model)


def _h5(path: Path, model: Any) -> Arrays:
    return _hdf5(path, model)


READERS: dict[str, Callable[[Path, Any], Arrays]] = {".npz": _npz, ".keras": _keras, ".h5": _h5}


def _hdf5(file: Any, model: Any) -> Arrays:
    import h5py

    with h5py.File(file, "r") as content:
        whole = content.get("model_weights", content)
        pairs = _old_layers(whole) if "layer_names" in whole.attrs else _layers(content)
        found: dict[str, list[Any]] = {}
        for name, arrays in pairs:
            if name in found and arrays:
                raise ValueError(f"it has two layers named {name}")
            if arrays:
                found[name] = arrays
    return _by_path(found, model)


def _layers(content: Any) -> Iterator[tuple[str, list[Any]]]:
    """Layer → arrays of what Keras 3 writes: groups `…/vars` that tell the layer's name."""
    groups: list[Any] = []
    content.visititems(lambda path, item: groups.append(item) if path.endswith("/vars") else None)
    for group in groups:
        owner = group.name.strip("/").split("/")
        if owner[0] == "optimizer" or "seed_generator" in group.name or not len(group):
            continue
        if "name" not in group.attrs:
            raise ValueError("it does not tell the names of its layers; save it with Keras 3.12")
        arrays = [_array(group[number]) for number in sorted(group, key=int)]
        yield str(group.attrs["name"]), arrays


def _old_layers(whole: Any) -> Iterator[tuple[str, list[Any]]]:
    """Layer → arrays of the older format, which lists the names of weights."""
    for outer in whole.attrs["layer_names"]:
        group = whole[_text(outer)]
        inner: dict[str, list[Any]] = {}
        for weight in group.attrs["weight_names"]:
            name = _text(weight)
            inner.setdefault(name.split("/")[-2], []).append(_array(group[name]))
        yield from inner.items()


def _array(dataset: Any) -> Any:
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name} lies in another file")
    return np.asarray(dataset)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _by_path(found: dict[str, list[Any]], model: Any) -> Arrays:
    """The arrays of layers by the paths of variables; of other layers by a number."""
    own = {
        layer.name: [*layer._trainable_variables, *layer._non_trainable_variables]
        for layer in layers(model)
    }
    arrays: Arrays = {}
    for name, values in found.items():
        paths = [variable.path for variable in own.get(name, ())]
        if len(paths) != len(values):
            paths = [f"{name}/{number}" for number in range(len(values))]
        arrays |= dict(zip(paths, values, strict=True))
    return arrays
