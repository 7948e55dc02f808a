"""Augmentation as draw (parameters from keys) and apply (pixels from parameters).

`draw` is numpy and sees only keys; `apply` is TensorFlow, vectorised over instances, and works
alone and inside tf.data. So an instance's pixels depend on its key and its sample, and
on nothing else.

Shape suffixes: n instances, H height, W width, C channels.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.config import Augment
from ba_dist.data.sources import DatasetInfo
from ba_dist.sampling import Uint64s, integers

Parameters = dict[str, npt.NDArray[np.int32]]

# Each draw has a stream of its own; a new augmentation takes a new number and moves no other's.
_CROP_Y, _CROP_X, _FLIP, _CUTOUT_Y, _CUTOUT_X = range(5)


class Augmentation:
    """Pad and crop, flip, normalise, cutout: section 4.1 of the paper.

    Args:
        config: which of them, and how strong.
        info: image shape, mean and standard deviation of the dataset.
    """

    def __init__(self, config: Augment, info: DatasetInfo):
        self.config = config
        self.info = info

    def draw(self, keys: Uint64s) -> Parameters:
        """The parameters of each instance.

        Args:
            keys: uint64 [n].

        Returns:
            int32 [n] each: the crop's corner in the padded image (`crop_y`, `crop_x`), whether it
            is mirrored (`flip`), the centre of the square of zeros (`cutout_y`, `cutout_x`).
        """
        height, width, _ = self.info.image_shape
        config = self.config
        drawn: dict[str, npt.NDArray[np.int64]] = {}
        if config.pad_crop:
            drawn["crop_y"] = integers(keys, 0, 2 * config.pad_crop, _CROP_Y)
            drawn["crop_x"] = integers(keys, 0, 2 * config.pad_crop, _CROP_X)
        if config.flip:
            drawn["flip"] = integers(keys, 0, 1, _FLIP)
        if config.cutout:
            drawn["cutout_y"] = integers(keys, 0, height - 1, _CUTOUT_Y)
            drawn["cutout_x"] = integers(keys, 0, width - 1, _CUTOUT_X)
        return {name: values.astype(np.int32) for name, values in drawn.items()}

    def apply(self, images_nHWC: Any, parameters: dict[str, Any]) -> Any:
        """Augments and normalises images.

        Args:
            images_nHWC: uint8 [n, H, W, C].
            parameters: as drawn; none gives the plain image, as for evaluation.

        Returns:
            float32 [n, H, W, C].
        """
        if "crop_y" in parameters:
            images_nHWC = pad_and_crop(
                images_nHWC, self.config.pad_crop, parameters["crop_y"], parameters["crop_x"]
            )
        if "flip" in parameters:
            images_nHWC = flip(images_nHWC, parameters["flip"])
        images_nHWC = normalise(images_nHWC, self.info.mean, self.info.std)
        if "cutout_y" in parameters:
            images_nHWC = cutout(
                images_nHWC, self.config.cutout, parameters["cutout_y"], parameters["cutout_x"]
            )
        return images_nHWC


def pad_and_crop(images_nHWC: Any, padding: int, top_n: Any, left_n: Any) -> Any:
    """Pads by zeros on all sides and cuts out the original size, corner at (top, left)."""
    import tensorflow as tf

    _, height, width, _ = images_nHWC.shape
    border = [padding, padding]
    padded = tf.pad(images_nHWC, [[0, 0], border, border, [0, 0]])
    rows_nH = top_n[:, None] + tf.range(height)
    columns_nW = left_n[:, None] + tf.range(width)
    cropped = tf.gather(padded, rows_nH, axis=1, batch_dims=1)
    return tf.gather(cropped, columns_nW, axis=2, batch_dims=1)


def flip(images_nHWC: Any, flip_n: Any) -> Any:
    """Mirrors left and right where flip is 1."""
    import tensorflow as tf

    return tf.where(flip_n[:, None, None, None] == 1, images_nHWC[:, :, ::-1], images_nHWC)


def normalise(images_nHWC: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """(x - 255·mean) · 1 / (255·std), channel by channel, as float32.

    Multiplied, not divided: TensorFlow's graph optimiser replaces a division by a constant, and the
    pixels inside tf.data would differ in their last bit from those alone.
    """
    import tensorflow as tf

    pixels = tf.cast(images_nHWC, tf.float32)
    scale = tf.constant(1 / (255 * np.asarray(std)), tf.float32)
    return (pixels - tf.constant(255 * np.asarray(mean), tf.float32)) * scale


def cutout(images_nHWC: Any, size: int, y_n: Any, x_n: Any) -> Any:
    """Zeros one square of `size` pixels centred at (y, x), clipped at the border.

    The square covers y - size//2 … y - size//2 + size - 1. Source: DeVries and Taylor 2017,
    "Improved Regularization of Convolutional Neural Networks with Cutout".
    """
    import tensorflow as tf

    _, height, width, _ = images_nHWC.shape

    def inside(centre_n: Any, length: int) -> Any:
        offset = tf.range(length) - (centre_n[:, None] - size // 2)
        return (offset >= 0) & (offset < size)

    hole = inside(y_n, height)[:, :, None] & inside(x_n, width)[:, None, :]
    return tf.where(hole[..., None], tf.zeros((), images_nHWC.dtype), images_nHWC)
