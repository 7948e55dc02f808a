"""The folder of a run: one job at a time, old runs kept, files cut back when a run goes on."""

import contextlib
import json
import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from ba_dist.errors import UserError
from ba_dist.storage import whole_file
from ba_dist.storage.lock import Lock, LockHeld, hold

# Job script, log and marks of slurm/lib.sh: they belong to a job that may still be running.
JOB_FOLDER = "job"

_PREVIOUS = re.compile(r"previous-(\d+)")
_LOCK = ".lock"  # and, where flock is missing, what begins like it


def default(title: str) -> str:
    """The run directory of a run that was not given one, below the current folder."""
    return f"runs/{title}-{datetime.now():%Y%m%d-%H%M%S}"


def claim(run_dir: Path) -> Lock:
    """Makes the folder and holds it for this job.

    Raises:
        UserError: when it cannot be made, or another job holds it.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        return hold(run_dir / _LOCK)
    except LockHeld as error:
        who = f" ({error})" if str(error) else ""
        raise UserError(
            f"another job is using {run_dir}{who}; wait for it, or choose another --run-dir"
        ) from None
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise UserError(
            f"the run directory {run_dir} cannot be used: {reason}; choose another --run-dir"
        ) from None


def missing(run_dir: Path) -> list[Path]:
    """The folders that `claim` will make, the outermost first."""
    return [path for path in (*reversed(run_dir.parents), run_dir) if not _exists(path)]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that may not be read
        return True


def unclaim(run_dir: Path, made: list[Path]) -> None:
    """Takes away the folders that `claim` has made, where the run came to nothing.

    Args:
        run_dir: that is held.
        made: what `missing` said before.
    """
    if not made:
        return
    with contextlib.suppress(OSError):  # a folder that something was written to stays
        files = list(run_dir.iterdir())
        if all(file.name.startswith(_LOCK) for file in files):
            for file in files:
                file.unlink()
            for path in reversed(made):
                path.rmdir()


def set_aside(run_dir: Path) -> Path | None:
    """Moves what an older run left into `previous-N` beside the new files; deletes nothing.

    Returns:
        The folder that it is in now; None where there was nothing.
    """
    earlier = {path: _PREVIOUS.fullmatch(path.name) for path in run_dir.iterdir()}
    leftovers = [path for path, match in earlier.items() if not match and not _stays(path.name)]
    if not leftovers:
        return None
    number = 1 + max((int(match[1]) for match in earlier.values() if match), default=0)
    place = run_dir / f"previous-{number}"
    place.mkdir()
    for path in leftovers:
        path.rename(place / path.name)
    return place


def _stays(name: str) -> bool:
    return name == JOB_FOLDER or name.startswith(_LOCK)


def entry_of(line: str) -> dict[str, Any] | None:
    """What a line of a JSON-lines file holds; None of one that is torn, as the last one may be."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def cut_back(path: Path, steps: int) -> None:
    """Drops the lines of a JSON-lines file that a resumed run will write again.

    Args:
        path: of the file; it may be missing, and its last line may be torn.
        steps: that are done; lines of later steps go.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        entry = entry_of(line)
        if entry is None:
            continue
        # A step of a trace counts from 0; all others tell the steps that are done.
        traced = "sample_ids" in entry and "finite" not in entry
        done = entry.get("weights_after", entry.get("step", 0)) + traced
        if done <= steps:
            kept.append(line + "\n")
    whole_file.write(path, "".join(kept))


def epoch_event(path: Path, step: int) -> dict[str, Any] | None:
    """What metrics.jsonl says of the epoch that ended after so many steps, if it was ended.

    Args:
        path: of the file; it may be missing, and its last line may be torn.
        step: steps that are done.
    """
    if not path.exists():
        return None
    found: dict[str, Any] | None = None
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            event = entry_of(line) or {}
            if event.get("event") == "epoch" and event.get("step") == step:
                found = event
    return found


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON text; numbers that JSON does not know, NaN and infinity, become null at any depth."""
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file of a run, whole or not at all."""
    whole_file.write(path, to_json(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file of a run.

    Raises:
        UserError: when the folder is not that of a run, or the file cannot be read.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except NotADirectoryError:
        raise UserError(f"{path.parent} is not a run directory: it is a file") from None
    except FileNotFoundError:
        why = f"it has no {path.name}" if path.parent.exists() else "it is not there"
        raise UserError(f"{path.parent} is not a run directory: {why}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is corrupt: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is corrupt: it holds no JSON object")
    return content
