"""Events of TensorBoard: one folder for training and one for validation, under the same tags.

tensorboard/             the values of the run, for the tab HParams
tensorboard/train/       scalars of training; images of a few samples' copies
tensorboard/validation/  scalars of evaluations
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.run.names import common_name, numbers


class Board:
    """Writes events of TensorBoard on rank 0.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: Path):
        import tensorflow as tf

        self._tf, self._folder = tf, run_dir / "tensorboard"
        self._writers: dict[str, Any] = {}

    def start(self, settings: Mapping[str, Any], judged_by: str) -> None:
        """Notes the values of the run.

        Args:
            settings: name → value.
            judged_by: the number of evaluation that says how good a network is.
        """
        from tensorboard.plugins.hparams import api

        known = (bool, int, float, str)
        plain = {k: v if isinstance(v, known) else f"{v}" for k, v in settings.items()}
        with self._writing("", 0):
            metric = api.Metric(common_name(judged_by), group="validation")
            api.hparams_config(hparams=[api.HParam(name) for name in plain], metrics=[metric])
            api.hparams(plain)

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes the numbers of an event."""
        for name, value in numbers(event, values).items():
            split, tag = name.split("/", 1)
            with self._writing(split, step):
                self._tf.summary.scalar(tag, value)

    def images(self, images: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Shows images of the start of a run, name → [H, W, C] in 0 … 1."""
        with self._writing("train", 0):
            for name, image in images.items():
                self._tf.summary.image(name, image[None])

    def close(self) -> None:
        """Flushes and closes the files."""
        for writer in self._writers.values():
            # A disk that was full has been told of before; nothing more can be saved here.
            with contextlib.suppress(OSError, self._tf.errors.OpError):
                writer.close()

    @contextlib.contextmanager
    def _writing(self, split: str, step: int) -> Iterator[None]:
        try:
            if split not in self._writers:
                folder = str(self._folder / split)
                self._writers[split] = self._tf.summary.create_file_writer(folder)
            with self._writers[split].as_default(step=step):
                yield
        except self._tf.errors.OpError as error:  # its own kind, without a number
            raise _os_error(str(error), self._folder) from None


def _os_error(text: str, path: Path) -> OSError:
    """What TensorFlow says of a write that failed, as Python says it."""
    number = next((n for n in errno.errorcode if os.strerror(n) in text), errno.EIO)
    return OSError(number, os.strerror(number), str(path))
