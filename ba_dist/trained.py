"""The network of a run, as one of its checkpoints has it; without the data it was trained on."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ba_dist import experiment, models, runtime, tasks
from ba_dist.config import Config, check_computation
from ba_dist.data.sources import DatasetInfo
from ba_dist.errors import ConfigError, UserError
from ba_dist.models import variables
from ba_dist.run import checkpoint
from ba_dist.run.checkpoint import Checkpoint
from ba_dist.run.record import load_config


@dataclass(frozen=True)
class Trained:
    """A network with the weights of a checkpoint.

    Args:
        folder: of the run.
        made: configuration, task and Keras model.
        info: of the dataset that it was trained on.
        class_names: in order of the labels; empty where they are not known.
        step: of the checkpoint.
    """

    folder: Path
    made: experiment.Experiment
    info: Any
    class_names: tuple[str, ...]
    step: int


def read_config(folder: Path) -> tuple[Config, dict[str, Any]]:
    """The configuration of a run that this version computes alike, and its config.json.

    Raises:
        UserError: when the folder is not that of a run.
        ConfigError: when another version made it, whose results differ.
    """
    config, facts = load_config(folder)
    check_computation(facts.get("computation", 1))
    return config, facts


def load(folder: Path, which: str = "newest") -> Trained:
    """The network of a run, in this process alone.

    Args:
        folder: of the run.
        which: checkpoint: `newest`, `best`, or the number of a step.

    Raises:
        UserError: when the folder is not that of a run, or has no such checkpoint.
        ConfigError: when its network cannot be made.
    """
    config, facts = read_config(folder)
    found = checkpoint.choose(checkpoint.folder_of(folder), which)
    # A script that has TensorFlow already has set it up as it likes.
    if "tensorflow" not in sys.modules:
        runtime.prepare(0, 1, runtime.cores())
    info = read_info(folder, config, facts)
    made = network(config, facts, info)
    restore(made, found)
    return Trained(folder, made, info, class_names(facts), found.step)


def class_names(facts: dict[str, Any]) -> tuple[str, ...]:
    """Of the classes, as a run's config.json has them."""
    return tuple(facts.get("class_names", ()))


def network(config: Config, facts: dict[str, Any], info: DatasetInfo) -> experiment.Experiment:
    """The network of a run, with the weights of its seed.

    Args:
        config: of the run.
        facts: its config.json.
        info: of its dataset.
    """
    home = facts.get("folder")
    ghost_batch = facts["layout"]["ghost_batch_size"]
    return experiment.assemble(config, info, ghost_batch, home=Path(home) if home else None)


def restore(made: experiment.Experiment, found: Checkpoint) -> None:
    """Sets the network to what a checkpoint holds.

    Raises:
        CheckpointError: naming the first variable that does not fit.
    """
    weights = variables.fitting(found.arrays, made.model)
    checkpoint.restore(weights, variables.alike(made.model))


def read_info(folder: Path, config: Config, facts: dict[str, Any]) -> DatasetInfo:
    """What a run's config.json says of its dataset.

    Raises:
        UserError: when it says too little.
    """
    try:
        return tasks.read_info(models.network(config.model.model).task, facts["data"]["info"])
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        path = folder / "config.json"
        raise UserError(f"{path} does not describe the data of a run: {error!r}") from None
