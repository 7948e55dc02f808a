"""The operations on an image that AutoAugment, RandAugment and colour jitter are made of.

A level says how strong an operation is: from 0 to 9 in AutoAugment, linear also beyond. What each
does is defined as in Pillow, and correct to one grey level; blends are rounded down. Where an
operation gives every value of a channel one new value, it is a table, and tables that follow each
other become one, so the pixels are looked up once.

Source: Cubuk et al. 2019, "AutoAugment: Learning Augmentation Policies from Data", appendix;
details (no fill but black, the nearest pixel, magnitudes) as in torchvision's AutoAugment.

Shape suffixes: H height, W width, C channels.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.data.augment.opencv import cv2
from ba_dist.data.sources import Image

Table = npt.NDArray[np.uint8]  # [256], or [256, 3] where channels differ
_VALUES = np.arange(256)
# Added before rounding down: a whole number stays one though floats made it a bit smaller.
_LITTLE = 1e-3


class Pixels:
    """An RGB image and a table that all its values are still to be looked up in.

    Args:
        image_HWC: uint8 [H, W, 3], left as it is.
    """

    def __init__(self, image_HWC: Image):
        self._image = image_HWC
        self._table: Table | None = None
        self.height, self.width, _ = image_HWC.shape

    def look_up(self, table: Table) -> None:
        """Gives every value the one that the table has for it."""
        before = self._table
        if before is None:
            self._table = table
        elif table.ndim == 1:
            self._table = table[before]
        else:
            wide = before if before.ndim == 2 else before[:, None]
            self._table = np.take_along_axis(table, wide, 0)

    def counts(self) -> npt.NDArray[np.int64]:
        """How many pixels have each value, int64 [3, 256]."""
        channels = [cv2.calcHist([self._image], [c], None, [256], [0, 256]) for c in range(3)]
        counts: npt.NDArray[Any] = np.array(channels).reshape(3, 256)
        if self._table is not None:
            tables = np.broadcast_to(self._table.T, (3, 256))
            pairs = zip(tables, counts, strict=True)
            counts = np.array([np.bincount(table, of, 256) for table, of in pairs])
        return counts.astype(np.int64)

    def image(self) -> Image:
        """The image as it is now."""
        if self._table is not None:
            self.replace(self._looked_up(None))
        return self._image

    def replace(self, image_HWC: Image) -> None:
        """Makes it another image of the same size."""
        self._image, self._table = image_HWC, None

    def write(self, out_HWC: Image) -> None:
        """Writes the image as it is now, C-contiguous; the first image's own memory will do."""
        if self._table is not None:
            self._looked_up(out_HWC)
        elif self._image is not out_HWC:
            out_HWC[...] = self._image

    def _looked_up(self, out_HWC: Image | None) -> Image:
        assert self._table is not None
        table = self._table if self._table.ndim == 1 else np.ascontiguousarray(self._table)[None]
        return np.asarray(cv2.LUT(self._image, table, dst=out_HWC))


# --- tables ---------------------------------------------------------------------------------------


def auto_contrast(pixels: Pixels) -> None:
    """Stretches each channel so that its least value is 0 and its largest is 255."""
    tables = []
    for counts in pixels.counts():
        low, high = np.flatnonzero(counts)[[0, -1]]
        scale = 255.0 / (high - low) if high > low else 1.0
        tables.append(np.clip(_VALUES * scale - (low * scale if high > low else 0.0), 0, 255))
    pixels.look_up(np.stack(tables, 1).astype(np.uint8))


def equalize(pixels: Pixels) -> None:
    """Each value becomes the share of smaller pixels in its channel, so that all are as frequent.

    The last value that occurs does not count, as in Pillow.
    """
    tables = []
    for counts in pixels.counts():
        present = np.flatnonzero(counts)
        step = (counts.sum() - counts[present[-1]]) // 255
        if len(present) == 1 or step == 0:
            tables.append(_VALUES)
            continue
        smaller = np.cumsum(counts) - counts
        tables.append(np.minimum((smaller + step // 2) // step, 255))
    pixels.look_up(np.stack(tables, 1).astype(np.uint8))


def invert(pixels: Pixels) -> None:
    """255 - v."""
    pixels.look_up((255 - _VALUES).astype(np.uint8))


def solarize(pixels: Pixels, threshold: float) -> None:
    """255 - v where v is at least the threshold."""
    pixels.look_up(np.where(np.less(_VALUES, threshold), _VALUES, 255 - _VALUES).astype(np.uint8))


def posterize(pixels: Pixels, bits: int) -> None:
    """Keeps so many of the highest bits of each value."""
    pixels.look_up((_VALUES & -(1 << (8 - bits))).astype(np.uint8))


def _blend(base: float, factor: float) -> Table:
    """base + factor · (v - base), within 0 … 255, for all values v."""
    return np.clip(base + factor * (_VALUES - base) + _LITTLE, 0, 255).astype(np.uint8)


def brightness(pixels: Pixels, factor: float) -> None:
    """factor · v."""
    pixels.look_up(_blend(0, factor))


def contrast(pixels: Pixels, factor: float) -> None:
    """m + factor · (v - m), where m is the mean of the image without colour, a whole number."""
    mean = cv2.mean(cv2.cvtColor(pixels.image(), cv2.COLOR_RGB2GRAY))[0]
    pixels.look_up(_blend(math.floor(mean + 0.5), factor))


# --- pixels ---------------------------------------------------------------------------------------


def _blend_images(base_HWC: Image, image_HWC: Image, factor: float, out_HWC: Image) -> None:
    """Writes base + factor · (image - base), within 0 … 255."""
    less = _LITTLE - 0.5  # OpenCV rounds to the nearest number
    cv2.addWeighted(image_HWC, factor, base_HWC, 1 - factor, less, dst=out_HWC)


def color(pixels: Pixels, factor: float) -> None:
    """g + factor · (v - g), where g is the pixel without colour: 0.299·R + 0.587·G + 0.114·B."""
    image = pixels.image()
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    _blend_images(grey, image, factor, grey)
    pixels.replace(grey)


_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def sharpness(pixels: Pixels, factor: float) -> None:
    """w + factor · (v - w), where w is the mean of 3x3 pixels with five times the middle one.

    The outermost pixels stay as they are.
    """
    image = pixels.image()
    made = image.copy()
    if min(image.shape[:2]) > 2:
        smooth = cv2.filter2D(image, -1, _SMOOTH)
        inner = (slice(1, -1), slice(1, -1))
        _blend_images(smooth[inner], image[inner], factor, made[inner])
    pixels.replace(made)


def shift(pixels: Pixels, down: int, right: int) -> None:
    """Moves the image by whole pixels; black where nothing comes to lie."""
    image, (height, width) = pixels.image(), (pixels.height, pixels.width)
    moved = np.zeros_like(image)
    moved[max(0, down) : max(0, height + down), max(0, right) : max(0, width + right)] = image[
        max(0, -down) : max(0, height - down), max(0, -right) : max(0, width - right)
    ]
    pixels.replace(moved)


Matrix = tuple[float, float, float, float, float, float]


def affine(pixels: Pixels, inverse: Matrix) -> None:
    """The pixel of (x, y) is the one that (a·x + b·y + c, d·x + e·y + f) lies in; black beyond.

    x and y are those of a pixel's centre, 1/2, 3/2, … A point on the border of two pixels belongs
    to the one on its right or below, as far as float64 tells.
    """
    places = _places(inverse, pixels.height, pixels.width)
    pixels.replace(cv2.remap(pixels.image(), places, None, cv2.INTER_NEAREST))


# A policy of one image size has fewer than 20 of them, of 200 kB at 224 pixels.
@lru_cache(maxsize=32)
def _places(inverse: Matrix, height: int, width: int) -> npt.NDArray[np.int16]:
    """Column and row of the pixel that each new one is, int16 [height, width, 2]."""
    a, b, c, d, e, f = inverse
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    places = np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)
    whole = np.floor(places).clip(-(2**15), 2**15 - 1).astype(np.int16)
    whole.flags.writeable = False
    return whole


# --- levels ---------------------------------------------------------------------------------------


def _shear(level: float, sign: int) -> float:
    """The shear, up to 0.3 pixels for each pixel."""
    return sign * 0.3 * level / 9


def _shift(length: int, level: float, sign: int) -> int:
    """The shift in whole pixels, up to 150/331 of the image's side."""
    return sign * int(150 / 331 * length * level / 9)


def _rotate(pixels: Pixels, level: float, sign: int) -> None:
    """Counterclockwise about the middle of the image, up to 30 degrees."""
    angle = math.radians(sign * 30 * level / 9)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = pixels.width / 2, pixels.height / 2
    affine(pixels, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))


def _enhance(
    enhancement: Callable[[Pixels, float], None],
) -> Callable[[Pixels, Any, int], None]:
    """An operation with a factor up to 1 ± 0.9; beyond, not below 0."""
    return lambda pixels, level, sign: enhancement(pixels, max(0, 1 + sign * 0.9 * level / 9))


# Each takes an image, the level and the sign, which counts for those with two directions.
OPERATIONS: dict[str, Callable[[Pixels, Any, int], None]] = {
    "ShearX": lambda p, level, sign: affine(p, (1, _shear(level, sign), 0, 0, 1, 0)),
    "ShearY": lambda p, level, sign: affine(p, (1, 0, 0, _shear(level, sign), 1, 0)),
    "TranslateX": lambda p, level, sign: shift(p, 0, _shift(p.width, level, sign)),
    "TranslateY": lambda p, level, sign: shift(p, _shift(p.height, level, sign), 0),
    "Rotate": _rotate,
    "AutoContrast": lambda p, level, sign: auto_contrast(p),
    "Invert": lambda p, level, sign: invert(p),
    "Equalize": lambda p, level, sign: equalize(p),
    "Solarize": lambda p, level, sign: solarize(p, 255 * (9 - level) / 9),
    "Posterize": lambda p, level, sign: posterize(p, max(1, 8 - round(level * 4 / 9))),
    "Contrast": _enhance(contrast),
    "Color": _enhance(color),
    "Brightness": _enhance(brightness),
    "Sharpness": _enhance(sharpness),
}

# Those with two directions.
SIGNED = {name for name in OPERATIONS if name.startswith(("Shear", "Translate"))}
SIGNED |= {"Rotate", "Contrast", "Color", "Brightness", "Sharpness"}
