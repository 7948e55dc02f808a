"""What is learned: name → task. A network says in its registry entry which task it is for."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ba_dist.config import Config
from ba_dist.data.sources import DatasetInfo, ImageInfo, PairsInfo
from ba_dist.data.sources.text import TextInfo
from ba_dist.errors import ConfigError
from ba_dist.tasks.classification import classification
from ba_dist.tasks.language_model import language_model
from ba_dist.tasks.task import Field, Loss, Task
from ba_dist.tasks.translation import translation

__all__ = ["TASKS", "Entry", "Field", "Loss", "Task", "build", "read_info"]


@dataclass(frozen=True)
class Entry:
    """One entry of the registry.

    Args:
        build: called with the configuration and the info of the dataset.
        info: the kind of dataset that it needs.
    """

    build: Callable[[Config, Any], Task]
    info: type[DatasetInfo]


# Tests and scripts may add their own.
TASKS: dict[str, Entry] = {
    "classification": Entry(classification, ImageInfo),
    "language-model": Entry(language_model, TextInfo),
    "translation": Entry(translation, PairsInfo),
}


def build(name: str, config: Config, info: DatasetInfo) -> Task:
    """The task of this name, for a configuration and a dataset.

    Raises:
        ConfigError: listing the tasks when there is none of this name, or when configuration and
            dataset do not fit it.
    """
    entry = _entry(name)
    if not isinstance(info, entry.info):
        raise ConfigError(
            f"--model {config.model.model} learns {name}, which {info.name} cannot be used for"
        )
    return entry.build(config, info)


def read_info(name: str, facts: Mapping[str, Any]) -> DatasetInfo:
    """The info of a dataset, as config.json holds it.

    Args:
        name: of the task.
        facts: field → value; JSON has lists in place of tuples.

    Raises:
        TypeError, KeyError: when a field is missing or unknown.
    """
    lists = {
        key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()
    }
    kind: Any = _entry(name).info
    needed = {f.name for f in dataclasses.fields(kind) if f.metadata.get("stored", True)}
    if missing := needed - lists.keys():
        raise KeyError(min(missing))
    info: DatasetInfo = kind(**lists)
    return info


def _entry(name: str) -> Entry:
    if name not in TASKS:
        raise ConfigError(f"there is no task {name!r}; choose from {', '.join(TASKS)}")
    return TASKS[name]
