"""What is learned: name → task. A network says in its registry entry which task it is for."""

from collections.abc import Callable
from typing import Any

from ba_dist.config import Config
from ba_dist.errors import ConfigError
from ba_dist.tasks.classification import classification
from ba_dist.tasks.task import Field, Loss, Task

__all__ = ["TASKS", "Field", "Loss", "Task", "build"]

# Builders get the configuration and the info of the dataset. Tests and scripts may add their own.
TASKS: dict[str, Callable[[Config, Any], Task]] = {"classification": classification}


def build(name: str, config: Config, info: Any) -> Task:
    """The task of this name, for a configuration and a dataset.

    Raises:
        ConfigError: listing the tasks when there is none of this name, or when configuration and
            dataset do not fit it.
    """
    if name not in TASKS:
        raise ConfigError(f"there is no task {name!r}; choose from {', '.join(TASKS)}")
    return TASKS[name](config, info)
