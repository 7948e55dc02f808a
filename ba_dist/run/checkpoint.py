"""Checkpoints: one file each, written whole or not at all, checked by digest when read.

    checkpoints/step-00000123.safetensors    the newest ones
    checkpoints/best.safetensors             with --keep-best; older or newer than those

safetensors holds plain arrays and text, and never runs code when it is read.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from ba_dist.comm import Comm
from ba_dist.errors import CheckpointError, reason
from ba_dist.storage import whole_file

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps.

    Args:
        step: steps that are done.
        arrays: name → value of every variable.
        facts: what else a resumed run needs, as JSON holds it.
    """

    step: int
    arrays: Arrays
    facts: dict[str, Any]


def folder_of(run_dir: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run_dir / "checkpoints"


_BEST = "best.safetensors"


def save_best(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint in the place of the best one before."""
    folder.mkdir(parents=True, exist_ok=True)
    return whole_file.write(folder / _BEST, _encode(checkpoint))


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes a checkpoint, then deletes those before it but for the newest `keep` in all.

    The file appears under its name only when all of it is on disk. Files of later steps stay and
    do not count: a run that is before them could not read them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = _path_of(folder, checkpoint.step)
    whole_file.write(path, _encode(checkpoint))
    before = [old for old in _newest_first(folder) if _step_of(old) < checkpoint.step]
    # A temporary file is what a job left that was killed while it wrote.
    for old in [*before[keep - 1 :], *folder.glob(".step-*.tmp")]:
        old.unlink(missing_ok=True)
    return path


def _encode(checkpoint: Checkpoint) -> bytes:
    # Not np.ascontiguousarray, which makes scalars one-dimensional.
    arrays = {name: np.asarray(a, order="C") for name, a in sorted(checkpoint.arrays.items())}
    facts = {"step": checkpoint.step, "facts": checkpoint.facts, "arrays": _digests(arrays)}
    text = json.dumps(facts)
    # One entry, because safetensors writes several in any order.
    return safetensors.numpy.save(arrays, metadata={"ba_dist": f"{_sha256(text)} {text}"})


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        CheckpointError: naming the file, when it is corrupt.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            digest, _, text = (file.metadata() or {})["ba_dist"].partition(" ")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except KeyError as error:
        raise CheckpointError(f"{path} is not a checkpoint of ba_dist: no {error}") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from None
    if _sha256(text) != digest:
        raise CheckpointError(f"{path} is corrupt: its facts do not match their digest")
    facts = json.loads(text)
    if _digests(arrays) != facts["arrays"]:
        raise CheckpointError(f"{path} is corrupt: its content does not match its digests")
    return Checkpoint(facts["step"], arrays, facts["facts"])


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be read, and what was wrong with newer ones."""
    complaints: list[str] = []
    for path in _newest_first(folder):
        try:
            return load(path), complaints
        except CheckpointError as error:
            complaints.append(str(error))
    return None, complaints


def newest_good(folder: Path) -> Checkpoint:
    """The newest checkpoint that can be read; newer ones that cannot are told on stderr.

    Raises:
        CheckpointError: when there is none.
    """
    found, complaints = newest(folder)
    if found is None:
        raise CheckpointError("; ".join(complaints) or f"{folder} holds no checkpoint")
    for complaint in complaints:
        print(f"warning: {complaint}; trying the one before", file=sys.stderr, flush=True)
    return found


def choose(folder: Path, which: str = "newest") -> Checkpoint:
    """A checkpoint by name.

    Args:
        folder: of the checkpoints.
        which: `newest` (that can be read), `best`, or the number of a step.

    Raises:
        CheckpointError: listing those that there are, when there is none of this name.
    """
    if which == "newest":
        return newest_good(folder)
    path = folder / _BEST
    if which != "best":
        if not which.isdecimal():
            raise CheckpointError(f"--checkpoint {which} is none of newest, best or a step")
        path = _path_of(folder, int(which))
    known = names(folder)
    if not path.exists():
        there = ", ".join(known) or "none"
        hint = "; train with --keep-best to have the best one" if which == "best" else ""
        raise CheckpointError(f"{folder} has no checkpoint {which}; there are: {there}{hint}")
    return load(path)


def names(folder: Path) -> list[str]:
    """What `choose` can choose from: `best`, if it is there, and steps, the newest last."""
    steps = [str(_step_of(path)) for path in reversed(_newest_first(folder))]
    return ["best"] * (folder / _BEST).exists() + steps


def share(checkpoint: Checkpoint | None, comm: Comm) -> Checkpoint | None:
    """Rank 0's checkpoint on every rank; collective over the world."""
    outline = None
    if checkpoint is not None:
        shapes = {name: (a.shape, a.dtype.str) for name, a in checkpoint.arrays.items()}
        outline = (checkpoint.step, shapes, checkpoint.facts)
    outline = comm.world.share_object(outline)
    if outline is None:
        return None
    step, shapes, facts = outline
    arrays = {}
    for name, (shape, dtype) in shapes.items():
        mine = checkpoint.arrays[name] if checkpoint else np.empty(shape, dtype)
        arrays[name] = comm.world.broadcast(mine)
    return Checkpoint(step, arrays, facts)


def restore(arrays: Arrays, state: Mapping[str, Any]) -> None:
    """Sets variables from arrays.

    Raises:
        CheckpointError: naming the first variable that does not fit; then none was set.
    """
    if set(arrays) != set(state):
        odd = sorted(set(arrays) ^ set(state))[0]
        where = "checkpoint" if odd in arrays else "model"
        raise CheckpointError(f"the checkpoint does not fit the model: only the {where} has {odd}")
    for name, variable in state.items():
        if tuple(variable.shape) != arrays[name].shape:
            raise CheckpointError(
                f"the checkpoint does not fit the model: {name} has shape {arrays[name].shape},"
                f" the model expects {tuple(variable.shape)}"
            )
    for name, variable in state.items():
        variable.assign(arrays[name])


def _path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.safetensors"


def _newest_first(folder: Path) -> list[Path]:
    """Raises CheckpointError when the folder may not be looked into: it must not seem empty."""
    try:
        found = list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}") from None
    paths = [path for path in found if fnmatch(path.name, "step-*.safetensors")]
    return sorted((p for p in paths if _number(p).isdecimal()), key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    return int(_number(path))


def _number(path: Path) -> str:
    return path.stem.removeprefix("step-")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _digests(arrays: Arrays) -> dict[str, str]:
    """Name → SHA-256 of an array's type, shape and bytes."""
    return {name: _digest(array) for name, array in arrays.items()}


def _digest(array: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
