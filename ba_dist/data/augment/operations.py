"""The operations on an image that AutoAugment and RandAugment are made of.

A level says how strong an operation is: from 0 to 9 in AutoAugment, linear also beyond.

Source: Cubuk et al. 2019, "AutoAugment: Learning Augmentation Policies from Data", appendix;
details (no fill but black, the nearest pixel, magnitudes) as in torchvision's AutoAugment.
"""

from collections.abc import Callable
from typing import Any

from PIL import Image as pillow
from PIL import ImageEnhance, ImageOps

PillowImage = pillow.Image


def _affine(pillow_image: PillowImage, *inverse: float) -> PillowImage:
    """The pixel of (x, y) is that of (a·x + b·y + c, d·x + e·y + f); black beyond the border."""
    return pillow_image.transform(
        pillow_image.size, pillow.Transform.AFFINE, inverse, pillow.Resampling.NEAREST
    )


def _shear(level: float, sign: int) -> float:
    """The shear, up to 0.3 pixels for each pixel."""
    return sign * 0.3 * level / 9


def _shift(length: int, level: float, sign: int) -> int:
    """The shift in whole pixels, up to 150/331 of the image's side."""
    return -sign * int(150 / 331 * length * level / 9)


def _enhance(enhancer: Any) -> Callable[[PillowImage, Any, int], PillowImage]:
    """An operation of Pillow's enhancers, with factors up to 1 ± 0.9; beyond, not below 0."""
    return lambda pillow_image, level, sign: enhancer(pillow_image).enhance(
        max(0, 1 + sign * 0.9 * level / 9)
    )


# Each takes an image, the level and the sign, which counts for those with two directions.
OPERATIONS: dict[str, Callable[[PillowImage, Any, int], PillowImage]] = {
    "ShearX": lambda p, level, sign: _affine(p, 1, _shear(level, sign), 0, 0, 1, 0),
    "ShearY": lambda p, level, sign: _affine(p, 1, 0, 0, _shear(level, sign), 1, 0),
    "TranslateX": lambda p, level, sign: _affine(p, 1, 0, _shift(p.width, level, sign), 0, 1, 0),
    "TranslateY": lambda p, level, sign: _affine(p, 1, 0, 0, 0, 1, _shift(p.height, level, sign)),
    "Rotate": lambda p, level, sign: p.rotate(sign * 30 * level / 9),
    "AutoContrast": lambda p, level, sign: ImageOps.autocontrast(p),
    "Invert": lambda p, level, sign: ImageOps.invert(p),
    "Equalize": lambda p, level, sign: ImageOps.equalize(p),
    "Solarize": lambda p, level, sign: ImageOps.solarize(p, 255 * (9 - level) / 9),
    "Posterize": lambda p, level, sign: ImageOps.posterize(p, max(1, 8 - round(level * 4 / 9))),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Color": _enhance(ImageEnhance.Color),
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
}

# Those with two directions.
SIGNED = {name for name in OPERATIONS if name.startswith(("Shear", "Translate"))}
SIGNED |= {"Rotate", "Contrast", "Color", "Brightness", "Sharpness"}
