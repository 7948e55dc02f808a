"""The numbers of a run in files: metrics.jsonl and events of TensorBoard."""

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

from ba_dist.run.run_dir import to_json


def common_name(name: str) -> str:
    """What a number of an evaluation is called in training, so that both are in one picture."""
    return {"val_top1": "accuracy"}.get(name, name.removeprefix("val_"))


class Metrics:
    """Writes down events on rank 0; on other ranks it is never made.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: Path):
        import tensorflow as tf

        self._tf, self._folder = tf, run_dir / "tensorboard"
        self._file = (run_dir / "metrics.jsonl").open("a")
        self._board = tf.summary.create_file_writer(str(self._folder))

    def write(self, event: str, step: int, **values: Any) -> None:
        """Writes one object `{"event", "step", …}`; numbers also go to TensorBoard.

        A number that is not finite is null in the file, as JSON has no word for it.

        Args:
            event: start, step, epoch, checkpoint or end.
            step: steps that are done.
        """
        try:
            self._file.write(to_json({"event": event, "step": step, **values}) + "\n")
            self._file.flush()
        except OSError as error:  # which does not say what file it was
            raise OSError(error.errno, error.strerror, self._file.name) from None
        try:
            with self._board.as_default(step=step):
                for name, value in values.items():
                    if isinstance(value, (int, float)) and not isinstance(value, bool):
                        self._tf.summary.scalar(f"{event}/{name}", value)
        except self._tf.errors.OpError as error:  # its own kind, without a number
            raise _os_error(str(error), self._folder) from None

    def close(self) -> None:
        """Flushes and closes both files."""
        # A disk that was full has been told of before; nothing more can be saved here.
        with contextlib.suppress(OSError, self._tf.errors.OpError):
            self._board.close()
        with contextlib.suppress(OSError):
            self._file.close()


def _os_error(text: str, path: Path) -> OSError:
    """What TensorFlow says of a write that failed, as Python says it."""
    number = next((n for n in errno.errorcode if os.strerror(n) in text), errno.EIO)
    return OSError(number, os.strerror(number), str(path))
