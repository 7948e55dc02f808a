"""A network, or its weights alone, for other programs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ba_dist.errors import ConfigError, UserError
from ba_dist.models import variables
from ba_dist.run import checkpoint


def export(folder: Path, output: str, which: str = "newest", form: str | None = None) -> str:
    """Writes the network of a checkpoint, or its variables.

    Args:
        folder: of the run.
        output: the file or folder to write.
        which: checkpoint: `newest`, `best`, or the number of a step.
        form: a key of `FORMS`; None for the one that the output's name tells.

    Returns:
        What was written, for a person.

    Raises:
        UserError: when there is no such checkpoint, or the output cannot be written.
    """
    form = form or _form_of(output)
    path = Path(output)
    try:
        return f"{path}: {FORMS[form](folder, path, which)}"
    except OSError as error:
        if error.filename and Path(error.filename).is_relative_to(checkpoint.folder_of(folder)):
            raise  # of reading, not of writing
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


def _form_of(output: str) -> str:
    for ending, form in ((".npz", "npz"), (".keras", "keras"), ("/", "savedmodel")):
        if output.endswith(ending):
            return form
    raise ConfigError(
        f"--output {output} tells no format; it may end in .npz, .keras or / (the folder of a"
        " SavedModel), or --format names one"
    )


def _npz(folder: Path, output: Path, which: str) -> str:
    found = checkpoint.choose(checkpoint.folder_of(folder), which)
    weights = variables.of_network(found.arrays)
    with output.open("wb") as file:
        np.savez(file, **weights)
    return f"{len(weights)} variables of step {found.step}"


def _keras(folder: Path, output: Path, which: str) -> str:
    model, said = _whole(folder, which)
    # Beside it and then renamed: a file under its name is whole. Keras asks for the ending.
    temporary = output.with_name(f".{output.name}.tmp.keras")
    try:
        model.save(temporary)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    return said


def _savedmodel(folder: Path, output: Path, which: str) -> str:
    import keras

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} is there already, and no empty folder; choose another --output")
    model, said = _whole(folder, which)
    shape = (None, *model.input_shape[1:])
    signature = [keras.InputSpec(dtype="uint8", shape=shape)]
    model.export(output, "tf_saved_model", verbose=False, input_signature=signature)
    return said


FORMS: dict[str, Callable[[Path, Path, str], str]] = {
    "npz": _npz,
    "keras": _keras,
    "savedmodel": _savedmodel,
}


def _whole(folder: Path, which: str) -> tuple[Any, str]:
    """The network from pixels to logits, and what it takes and gives."""
    from ba_dist import trained
    from ba_dist.models.portable import own_layers, portable

    found = trained.load(folder, which)
    config, facts = found.made.config, found.made.task.facts
    if "image_shape" not in facts:
        raise UserError(
            f"{folder} has learned something else than images, whose network is exported as its"
            " weights alone: --output weights.npz"
        )
    shape = facts["image_shape"]
    model = portable(found.made.model, shape, found.info.mean, found.info.std)
    height, width, channels = shape
    said = (
        f"{config.model.model} of step {found.step}; pixels 0 … 255 [n, {height}, {width},"
        f" {channels}] -> logits [n, {model.output_shape[-1]}]"
    )
    if config.augment.crop != "none":
        resize = config.augment.resize
        said += f"; of larger images the centre, once the shorter side is {resize} pixels"
    if others := own_layers(model):
        said += f"; loading it needs the code of {', '.join(others)}"
    return model, said
