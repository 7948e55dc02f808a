"""Crops: which part of an image, and its pixels at the size that the network sees.

Numpy draws the boxes of all instances at once. OpenCV makes the pixels, image by image, in the
memory of the batch; it releases Python's lock while it works.

Shape suffixes: n instances, H height, W width, C channels.
"""

import numpy as np
import numpy.typing as npt

from ba_dist.data.augment.opencv import cv2
from ba_dist.data.sources import Image

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_ATTEMPTS = 10
_RATIOS = (3 / 4, 4 / 3)

# Bytes up to which numpy mirrors faster than OpenCV, whose call takes 5 µs: 64x64x3.
_SMALL = 12_288

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


def resize(
    image_HWC: Image,
    out_HWC: Image,
    *,
    whole: tuple[int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
    mirrored: bool = False,
) -> None:
    """Resizes an image, or makes a part of the resized image, in one pass.

        new(y, x) = mean over i < k_y, j < k_x of image((y + (i + 1/2) / k_y) · s_y,
                                                        (x + (j + 1/2) / k_x) · s_x)

    s old pixels are one new pixel, in either direction. image(v, u) is bilinear between the centres
    of pixels, which are at 1/2, 3/2, …, and constant beyond the outermost ones. As many samples are
    taken as keep high frequencies out: k = 1 where s ≤ 5/4, 2 where s ≤ 9/4, and so on, ⌈s - 1/4⌉.
    Where k is 3 or more in both directions it is the limit of many samples, the mean over the area
    that the new pixel covers. Pixels are correct to one grey level.

    So an image is smoothed as by the mean over the area (OpenCV's INTER_AREA, which ffcv uses) in
    half its time, and 1/4 is where one more sample comes nearer to it. One sample whatever s is, as
    in `tf.image.resize`, makes patterns of fine lines that the image does not have.

    Args:
        image_HWC: uint8 [H, W, C]. It may be a view of a larger image; pixels outside of the view
            are not used.
        out_HWC: uint8, C-contiguous, written.
        whole: height and width that the image is resized to; that of `out_HWC` by default.
        corner: row and column of the resized image where `out_HWC` begins.
        mirrored: `out_HWC` is mirrored, left to right.
    """
    (height, width, channels), (top, left) = out_HWC.shape, corner
    if channels == 1:  # which OpenCV leaves out in what it returns
        image_HWC, out_HWC = image_HWC[..., 0], out_HWC[..., 0]
    new_height, new_width = whole or (height, width)
    down = _samples(image_HWC.shape[0], new_height)
    across = _samples(image_HWC.shape[1], new_width)
    kind = cv2.INTER_LINEAR
    if min(down, across) > 2:
        down, across, kind = 1, 1, cv2.INTER_AREA
    straight = not mirrored and whole is None
    if down == across == 1 and straight:
        cv2.resize(image_HWC, (width, height), dst=out_HWC, interpolation=kind)
        return
    samples = cv2.resize(image_HWC, (new_width * across, new_height * down), interpolation=kind)
    rows = slice(top * down, (top + height) * down)
    samples = samples[rows, left * across : (left + width) * across]
    if down == across == 1:
        means = samples
    else:
        # Half way between two pixels, bilinear is their mean; OpenCV does it faster.
        kind = cv2.INTER_LINEAR if max(down, across) == 2 else cv2.INTER_AREA
        into = None if mirrored else out_HWC
        means = cv2.resize(samples, (width, height), dst=into, interpolation=kind)
    if mirrored:
        cv2.flip(means, 1, dst=out_HWC)
    elif means is samples:
        out_HWC[...] = means


def _samples(before: int, after: int) -> int:
    """How many samples in one direction are a new pixel: ⌈before / after - 1/4⌉, at least 1."""
    return max(1, -((after - 4 * before) // (4 * after)))


def resize_shorter(
    image_HWC: Image,
    out_HWC: Image,
    *,
    shorter: int,
    corner: tuple[int, int] | None = None,
    mirrored: bool = False,
) -> None:
    """Resizes the shorter side to `shorter`; of the result the part at `corner`, or its middle.

    Args:
        image_HWC: uint8 [H, W, C].
        out_HWC: uint8, C-contiguous, written; no side is above `shorter`.
        shorter: pixels.
        corner: row and column; None for the middle, half pixels rounded to the even number.
        mirrored: `out_HWC` is mirrored, left to right.
    """
    height, width = resized_sizes(np.array([image_HWC.shape[:2]]), shorter)[0].tolist()
    if corner is None:
        rows, columns, _ = out_HWC.shape
        corner = round((height - rows) / 2), round((width - columns) / 2)
    resize(image_HWC, out_HWC, whole=(height, width), corner=corner, mirrored=mirrored)


def pad_and_crop(
    image_HWC: Image, out_HWC: Image, *, padding: int, top: int, left: int, mirrored: bool = False
) -> None:
    """Pads an image by zeros on all sides, and crops it to its original size at (top, left).

    Args:
        image_HWC: uint8 [H, W, C].
        out_HWC: uint8 [H, W, C], written.
        padding: pixels on each side.
        top: row of the corner in the padded image, from 0 to 2·padding.
        left: column of the corner, from 0 to 2·padding.
        mirrored: the result is mirrored, left to right.
    """
    down, right = top - padding, left - padding
    height, width, _ = image_HWC.shape
    part = image_HWC[max(0, down) : max(0, height + down), max(0, right) : max(0, width + right)]
    if mirrored:
        right = -right
    into = out_HWC[max(0, -down) : max(0, height - down), max(0, -right) : max(0, width - right)]
    if down or right:
        out_HWC.fill(0)
    copy(part, into, mirrored=mirrored)


def copy(image_HWC: Image, out_HWC: Image, *, mirrored: bool = False) -> None:
    """Copies the pixels of an image to another one, mirrored or not."""
    if not mirrored:
        out_HWC[...] = image_HWC
    elif image_HWC.size > _SMALL:
        cv2.flip(image_HWC, 1, dst=out_HWC)
    else:
        # Channel by channel: otherwise numpy copies a mirrored row in pieces of C bytes.
        for c in range(image_HWC.shape[2]):
            out_HWC[:, ::-1, c] = image_HWC[..., c]


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
