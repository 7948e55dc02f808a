"""Encoded images → pixels: libjpeg-turbo for JPEG, Pillow for everything else.

libjpeg-turbo writes the pixels directly into the memory that it is given, and releases Python's
lock meanwhile. Its pixels equal those of Pillow and of TensorFlow's accurate decoder.
"""

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from ba_dist.data.sources import Allocate, Image, new_memory, put
from ba_dist.errors import CorruptRecord

if TYPE_CHECKING:
    from PIL import Image as pillow

# Pillow's own limit. ImageNet's largest image has 61 million pixels. A file of a few kilobytes can
# claim four thousand million and would take all memory.
MAX_PIXELS = 89_478_485

# The colour spaces that libjpeg-turbo converts to RGB correctly. Not CMYK: it does not know Adobe's
# inversion, so images from Photoshop would have wrong colours.
_PLAIN = ("YCbCr", "Gray", "RGB")

# Formats that are found in files named JPEG or PNG. Pillow reads forty more, mostly by code that is
# rarely used and should not read files of unknown origin.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")


def decode_image(encoded: bytes | memoryview, allocate: Allocate = new_memory) -> Image:
    """The pixels of an encoded image in RGB; grey becomes three equal channels.

    A JPEG that is cut short or has any fault is refused. Most viewers fill it with grey instead.
    Transparency and the camera's orientation are ignored, as in TensorFlow.

    Args:
        encoded: a file of JPEG or another format of `_FORMATS`.
        allocate: gives the memory for the pixels.

    Returns:
        uint8 [H, W, 3].

    Raises:
        CorruptRecord: with the reason why it cannot be decoded.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:  # no JPEG at all, or one that only Pillow knows
        return _through_pillow(encoded, allocate)
    if colours not in _PLAIN:
        return _through_pillow(encoded, allocate)
    _check_size(height, width)
    memory = allocate(height * width * 3)
    try:
        simplejpeg.decode_jpeg(encoded, buffer=memory, strict=True)
    except ValueError as error:
        raise CorruptRecord(f"the JPEG cannot be decoded: {error}") from None
    return memory[: height * width * 3].reshape(height, width, 3)


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise CorruptRecord(f"it claims {height}x{width} pixels; at most {MAX_PIXELS} are decoded")


def _through_pillow(encoded: bytes | memoryview, allocate: Allocate) -> Image:
    from PIL import Image as Pillow

    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes, which are checked here, and of metadata, which is not used.
            warnings.simplefilter("ignore")
            with Pillow.open(io.BytesIO(encoded), formats=_FORMATS) as pillow_image:
                _check_size(pillow_image.height, pillow_image.width)
                pixels = _rgb(pillow_image)
    except CorruptRecord:
        raise
    # Pillow's readers raise many kinds of exceptions on corrupt files.
    except Exception as error:
        if isinstance(error, Pillow.UnidentifiedImageError):
            expected = ", ".join(_FORMATS)
            raise CorruptRecord(
                f"{len(encoded)} bytes are no image that is known ({expected}); they begin with"
                f" {bytes(encoded[:8])!r}"
            ) from None
        raise CorruptRecord(f"it cannot be decoded: {error or type(error).__name__}") from None
    return put(pixels, pixels.shape, allocate)


def _rgb(pillow_image: "pillow.Image") -> Image:
    """The pixels of an open Pillow image, uint8 [H, W, 3]."""
    if pillow_image.mode.startswith("I"):
        # 16 bits a pixel: Pillow would clip at 255, not scale.
        high_bytes = (np.asarray(pillow_image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(high_bytes[:, :, None], 3, axis=2)
    return np.asarray(pillow_image.convert("RGB"))
