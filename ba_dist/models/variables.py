"""The names under which checkpoints hold the variables of a network."""

from collections.abc import Mapping
from typing import Any

from ba_dist.models.tags import INSTANCE, carries

_PREFIX, _AVERAGE = "model/", "average/"


def alike(model: Any) -> dict[str, Any]:
    """Name → variable, of those that all ranks hold alike."""
    return {_name(v): v.value for v in model.variables if not carries(v, INSTANCE)}


def of_instances(model: Any) -> dict[str, Any]:
    """Name → variable [b·K, …], of those that hold a row for each instance of a rank."""
    return {_name(v): v.value for v in model.variables if carries(v, INSTANCE)}


def to_average(model: Any) -> dict[str, Any]:
    """Name of the average → variable: weights and moving statistics, all that is no integer."""
    return {
        name.replace(_PREFIX, _AVERAGE, 1): variable
        for name, variable in alike(model).items()
        if variable.dtype.is_floating
    }


def of_network(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Those arrays of a checkpoint that belong to the network, by the paths of its variables.

    Where the run has kept an average of its weights, it is the average.
    """
    return {
        name.removeprefix(prefix): array
        for prefix in (_PREFIX, _AVERAGE)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def fitting(arrays: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """The arrays of a checkpoint for `alike`, without the rows of a training's instances."""
    apart = of_instances(model).keys()
    found = {f"{_PREFIX}{path}": array for path, array in of_network(arrays).items()}
    return {name: array for name, array in found.items() if name not in apart}


def _name(variable: Any) -> str:
    return f"{_PREFIX}{variable.path}"
