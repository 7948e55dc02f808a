"""Crops: which part of an image, and its pixels at the size that the network sees.

Numpy draws the boxes of all instances at once. Numpy and Pillow make the pixels, image by image;
Pillow releases Python's lock while it works.

Shape suffixes: n instances, H height, W width, C channels.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image as pillow

from ba_dist.data.sources import Image

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_ATTEMPTS = 10
_RATIOS = (3 / 4, 4 / 3)

# How many random numbers `random_resized_boxes` needs for each instance.
BOX_NUMBERS = 2 * _ATTEMPTS + 2


def random_resized_boxes(numbers: Floats, sizes: Integers, smallest: float) -> Integers:
    """Boxes of random area and shape, for "random resized crop".

    An attempt takes a share a of the area, uniform in `smallest` … 1, and a ratio r of width to
    height, log-uniform in 3/4 … 4/3: width √(a·H·W·r), height √(a·H·W/r), rounded. The first of
    ten attempts that fits into the image is placed anywhere in it; if none fits, it is the
    largest box in the middle whose ratio is allowed.

    Args:
        numbers: uniform in [0, 1), float64 [n, BOX_NUMBERS].
        sizes: height and width of each image, int64 [n, 2].
        smallest: the smallest share of the area, above 0, at most 1.

    Returns:
        int64 [n, 4]: top, left, height, width.

    Source: Szegedy et al. 2015, "Going Deeper with Convolutions"; details as in torchvision's
    RandomResizedCrop.
    """
    heights_n, widths_n = sizes[:, 0], sizes[:, 1]
    shares = smallest + numbers[:, :_ATTEMPTS] * (1 - smallest)
    low, high = np.log(_RATIOS)
    ratios = np.exp(low + numbers[:, _ATTEMPTS : 2 * _ATTEMPTS] * (high - low))
    areas = shares * (heights_n * widths_n)[:, None]
    heights = np.rint(np.sqrt(areas / ratios)).astype(np.int64)
    widths = np.rint(np.sqrt(areas * ratios)).astype(np.int64)
    fits = (heights > 0) & (heights <= heights_n[:, None])
    fits &= (widths > 0) & (widths <= widths_n[:, None])
    rows, first = np.arange(len(sizes)), np.argmax(fits, axis=1)
    found = fits[rows, first]
    middle_heights, middle_widths = _largest(heights_n, widths_n)
    height = np.where(found, heights[rows, first], middle_heights)
    width = np.where(found, widths[rows, first], middle_widths)
    top = np.where(
        found, _random_offsets(numbers[:, -2], heights_n - height), (heights_n - height) // 2
    )
    left = np.where(
        found, _random_offsets(numbers[:, -1], widths_n - width), (widths_n - width) // 2
    )
    return np.stack([top, left, height, width], axis=1)


def random_corners(numbers: Floats, sizes: Integers, shorter: int, crop: int) -> Integers:
    """Corners of squares, anywhere in images whose shorter side has been resized.

    Args:
        numbers: uniform in [0, 1), float64 [n, 2].
        sizes: height and width of each image as it is stored, int64 [n, 2].
        shorter: length that the shorter side is resized to, in pixels.
        crop: side of the square, in pixels.

    Returns:
        int64 [n, 2]: top, left.
    """
    room = resized_sizes(sizes, shorter) - crop
    return _random_offsets(numbers, room)


def resized_sizes(sizes: Integers, shorter: int) -> Integers:
    """Height and width after the shorter side is resized to `shorter`; the longer is rounded down.

    Args:
        sizes: int64 [n, 2].

    Returns:
        int64 [n, 2].
    """
    return shorter * sizes // sizes.min(axis=1, keepdims=True)


def resize(image_HWC: Image, height: int, width: int) -> Image:
    """Resizes an image: bilinear, smoothed when it becomes smaller.

    Args:
        image_HWC: uint8 [H, W, C], C = 1 or 3. It may be a view of a larger image; pixels outside
            of the view are not used.

    Returns:
        uint8 [height, width, C].
    """
    pillow_image = to_pillow(image_HWC).resize((width, height), pillow.Resampling.BILINEAR)
    return from_pillow(pillow_image)


def resize_shorter(image_HWC: Image, shorter: int) -> Image:
    """The image with its shorter side resized to `shorter`, uint8 [H', W', C]."""
    height, width = resized_sizes(np.array([image_HWC.shape[:2]]), shorter)[0].tolist()
    return resize(image_HWC, height, width)


def centre_crop(image_HWC: Image, height: int, width: int) -> Image:
    """The middle of an image; half pixels of the corner are rounded to the even number."""
    top = round((image_HWC.shape[0] - height) / 2)
    left = round((image_HWC.shape[1] - width) / 2)
    return image_HWC[top : top + height, left : left + width]


def pad_and_crop(image_HWC: Image, out: Image, *, padding: int, top: int, left: int) -> None:
    """Pads an image by zeros on all sides, and crops it to its original size at (top, left).

    Args:
        image_HWC: uint8 [H, W, C].
        out: uint8 [H, W, C], written.
        padding: pixels on each side.
        top: row of the corner in the padded image, from 0 to 2·padding.
        left: column of the corner, from 0 to 2·padding.
    """
    down, right = top - padding, left - padding
    height, width, _ = image_HWC.shape
    out[...] = 0
    into = out[max(0, -down) : max(0, height - down), max(0, -right) : max(0, width - right)]
    part = image_HWC[max(0, down) : max(0, height + down), max(0, right) : max(0, width + right)]
    copy(part, into)


def copy(image_HWC: Image, out: Image) -> None:
    """Copies the pixels of an image to another one, which may be a mirrored view."""
    if out.strides[1] > 0:
        out[...] = image_HWC
        return
    # Channel by channel: otherwise numpy copies a mirrored row in pieces of C bytes, which takes
    # three times as long (0.35 ms, not 0.11, for 224x224x3).
    for c in range(out.shape[2]):
        out[..., c] = image_HWC[..., c]


def to_pillow(image_HWC: Image) -> pillow.Image:
    """A Pillow image, RGB or grey, with these pixels."""
    # Pillow copies a part of an image byte by byte; numpy does it by rows, 200 times faster.
    whole = np.ascontiguousarray(image_HWC)
    return pillow.fromarray(whole[..., 0] if whole.shape[2] == 1 else whole)


def from_pillow(pillow_image: pillow.Image) -> Image:
    """The pixels of a Pillow image, uint8 [H, W, C]."""
    pixels = np.asarray(pillow_image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _largest(heights_n: Integers, widths_n: Integers) -> tuple[Integers, Integers]:
    """Heights and widths of the largest boxes whose ratio is allowed."""
    low, high = _RATIOS
    ratios = widths_n / heights_n
    heights = np.where(ratios < low, np.rint(widths_n / low).astype(np.int64), heights_n)
    widths = np.where(ratios > high, np.rint(heights_n * high).astype(np.int64), widths_n)
    return heights, widths


def _random_offsets(numbers: Floats, room: Integers) -> Integers:
    """Integers in 0 … room, both included, from uniform numbers."""
    return np.floor(numbers * (room + 1)).astype(np.int64)
