"""What the network of a run says of images, from files or arrays, as evaluation would see them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as pillow

from ba_dist.data.sources import Image
from ba_dist.data.sources.images import decode_image
from ba_dist.errors import CorruptRecord, DataError, UserError
from ba_dist.rules.confusion import name_of
from ba_dist.trained import Trained

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".webp")
_ROWS = 32  # images that go through the network at once


class Predictor:
    """Images → probabilities of the classes.

    Args:
        trained: the network.

    Raises:
        UserError: when it has learned something else than classes of images.
    """

    def __init__(self, trained: Trained):
        self.trained = trained
        self._task, self._model = trained.made.task, trained.made.model
        if "classes" not in self._task.facts:
            raise UserError(
                f"{trained.folder} has learned something else than classes of images"
                " (`ba-dist translate` is for sentences)"
            )
        self._channels = self._task.facts["image_shape"][2]

    def logits(self, images: Sequence[Image] | npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The logits of images, float32 [n, classes].

        Args:
            images: uint8 [H, W, C] each, of any size if the recipe crops.

        Raises:
            DataError: when an image has another size than the network and is not cropped, or
                another type.
        """
        found = [np.empty((0, self._task.facts["classes"]), np.float32)]
        for start in range(0, len(images), _ROWS):
            part = images[start : start + _ROWS]
            rows = self._task.allocate(len(part))
            for image, row in zip(part, rows, strict=True):
                self._task.plain(self._fitting(image), row)
            found.append(self._answer(rows))
        return np.concatenate(found)

    def files(self, paths: Sequence[Path]) -> Iterator[tuple[Path, Any]]:
        """(path, its logits [classes], or the error that tells why there are none), in order."""
        for start in range(0, len(paths), _ROWS):
            part = list(paths[start : start + _ROWS])
            rows, errors = self._task.allocate(len(part)), dict[int, Exception]()
            rows[...] = 0
            for i, path in enumerate(part):
                try:
                    self._task.plain(self._fitting(decode_image(path.read_bytes())), rows[i])
                except (OSError, CorruptRecord, DataError) as error:
                    errors[i] = error
            answers = self._answer(rows)
            yield from ((path, errors.get(i, answers[i])) for i, path in enumerate(part))

    def _answer(self, rows: Any) -> npt.NDArray[np.float32]:
        import tensorflow as tf

        from ba_dist.evaluate import answer

        labels = tf.zeros(len(rows), tf.int64)
        logits, _ = answer(self._task, self._model, rows, labels)
        return np.asarray(tf.cast(logits, tf.float32))

    def _fitting(self, image: Image) -> Image:
        """The image with as many channels as the network takes: grey from colours, as Pillow."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
            raise DataError(f"an image is {image.dtype} {image.shape}; expected uint8 [H, W, C]")
        if image.shape[2] == self._channels:
            return image
        if self._channels == 3:
            return np.repeat(image, 3, axis=2)
        return np.asarray(pillow.fromarray(image).convert("L"))[:, :, None]


def read(path: Path) -> Image:
    """The pixels of an image file, uint8 [H, W, 3].

    Raises:
        CorruptRecord: naming the file, when it cannot be read.
    """
    try:
        return decode_image(path.read_bytes())
    except (OSError, CorruptRecord) as error:
        raise CorruptRecord(f"{path}: {error}") from None


def probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """softmax over the last axis."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def best(logits: Any, names: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The likeliest classes of an image, with name (where it is known) and probability.

    Args:
        logits: float32 [classes].
        names: of the classes, where they are known.
        count: how many.
    """
    shares = probabilities(logits)
    order = np.argsort(-shares, kind="stable")[:count]
    return [
        {"class": int(i), "name": name_of(int(i), names), "probability": float(shares[i])}
        for i in order
    ]


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and of folders all images below them, sorted.

    Raises:
        UserError: when a path is not there, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
        if not inside:
            raise UserError(f"there is no image ({', '.join(SUFFIXES)}) in the folder {path}")
        found += sorted(inside)
    return found
