"""The trace: what each rank trained on in every step, a file of JSON lines each.

    trace/rank-00000.jsonl      {"step", "epoch", "group", "lane", "sample_ids", "copies",
                                 "augment_keys", "batch_sha256", "replaced", "instance_sha256"}
                                {"weights_after", "sha256"}

`analysis/trace.py` reads it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, TextIO

from ba_dist.data.batch import Batch, InstanceMaker, finish
from ba_dist.run import run_dir

# What each rank of a job writes for itself.
_RANKS = "rank-*.jsonl"
_FOLDERS = ("trace", "nonfinite")


def path_of(folder: Path, rank: int) -> Path:
    """Where a rank writes its trace."""
    return folder / "trace" / f"rank-{rank:05d}.jsonl"


def entry(batch: Batch, maker: InstanceMaker, group: int, lane: int) -> dict[str, Any]:
    """One line: what a rank trained on in a step, an element of each list an instance.

    Args:
        batch: of the rank.
        maker: of the instances; each gets the digest of its row as the network sees it.
        group: of the rank.
        lane: of the rank.
    """
    rows = finish(maker, batch.inputs)[maker.augmented].numpy()
    return {
        "step": batch.step,
        "epoch": batch.epoch,
        "group": group,
        "lane": lane,
        **batch.instances.as_dict(),
        "batch_sha256": batch.sha256,
        "replaced": {str(old): new for old, new in batch.replaced.tolist()},
        "instance_sha256": [row_digest(row) for row in rows],
    }


def row_digest(row: Any) -> str:
    """The digest of one instance as it is trained on, 16 hexadecimal digits."""
    return hashlib.sha256(row).hexdigest()[:16]


class Trace:
    """What one rank trained on, a line a step, and the digests of its weights in between.

    Args:
        path: of the file; None writes nothing.
        maker: of the instances.
        group: of the rank.
        lane: of the rank.
    """

    def __init__(self, path: Path | None, maker: InstanceMaker, group: int, lane: int):
        self._file: TextIO | None = None
        self._maker, self._group, self._lane = maker, group, lane
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Line by line, so that the trace is never behind a checkpoint.
            self._file = path.open("a", buffering=1)

    def step(self, batch: Batch) -> None:
        """The instances of a batch of the pipeline."""
        if self._file is not None:
            line = entry(batch, self._maker, self._group, self._lane)
            print(json.dumps(line), file=self._file)

    def weights(self, step: int, digest: str) -> None:
        """The digest of everything that is trained, after so many steps."""
        if self._file is not None:
            print(json.dumps({"weights_after": step, "sha256": digest}), file=self._file)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def cut_back(folder: Path, steps: int, rank: int, world_size: int) -> None:
    """Drops what a resumed run will write again; each rank cuts the files of its number and more.

    A job before may have had more ranks than this one: file n is cut by rank n mod world_size.
    """
    for path in (path for name in _FOLDERS for path in (folder / name).glob(_RANKS)):
        number = path.stem.removeprefix("rank-")
        if not number.isdecimal() or int(number) % world_size != rank:
            continue
        if steps == 0:
            path.unlink()
        else:
            run_dir.cut_back(path, steps)
