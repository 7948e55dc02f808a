"""Weights for other programs."""

from pathlib import Path

import numpy as np

from ba_dist.errors import UserError
from ba_dist.models import variables
from ba_dist.run import checkpoint


def export(folder: Path, output: Path, which: str = "newest") -> tuple[int, int]:
    """Writes the variables of a checkpoint as .npz.

    Args:
        folder: of the run.
        output: the file.
        which: checkpoint: `newest`, `best`, or the number of a step.

    Returns:
        The step it is of, and how many variables were written.

    Raises:
        CheckpointError: when there is no checkpoint that can be read.
        UserError: when the output cannot be written.
    """
    found = checkpoint.choose(checkpoint.folder_of(folder), which)
    weights = variables.of_network(found.arrays)
    try:
        with output.open("wb") as file:
            np.savez(file, **weights)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error}") from None
    return found.step, len(weights)
