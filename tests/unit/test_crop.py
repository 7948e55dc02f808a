"""Boxes and resizing, against loops and matrices in float64 on real pictures."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation, crop
from ba_dist.rules.keys import augmentation_keys

from .photographs import ANY_SIZE, UNLIKELY, WHOLE, digits, rendered, sizes_of

# --- references -----------------------------------------------------------------------------------


def samples(before, after):
    """How many are taken for a new pixel in one direction."""
    return max(1, math.ceil(Fraction(before, after) - Fraction(1, 4)))


def means(before, after, count):
    """float64 [after, before]: the mean of `count` bilinear samples in each new pixel."""
    places = (np.arange(after * count) + 0.5) * before / (after * count) - 0.5
    places = places.clip(0, before - 1)
    weights = np.maximum(0, 1 - np.abs(np.arange(before) - places[:, None]))
    return weights.reshape(after, count, before).mean(axis=1)


def areas(before, after):
    """float64 [after, before]: the share of each old pixel in the area of a new one."""
    ends = np.arange(after + 1)[:, None] * before / after
    old = np.arange(before)
    covered = np.minimum(ends[1:], old + 1) - np.maximum(ends[:-1], old)
    return np.maximum(0, covered) * after / before


def triangles(before, after):
    """float64 [after, before]: bilinear weights, as wide as a new pixel where that is larger."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    distance = np.abs(np.arange(before) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = np.maximum(0, 1 - distance)
    return weights / weights.sum(axis=1, keepdims=True)


def weighted(image, rows, columns):
    """float64 [height, width, C], not rounded."""
    bands = rows @ (np.moveaxis(image.astype(float), 2, 0) @ columns.T)
    return np.moveaxis(bands, 0, 2)


def resized(image, height, width):
    """As the docstring of `crop.resize` says, not rounded."""
    sides = list(zip(image.shape[:2], (height, width), strict=True))
    counts = [samples(*side) for side in sides]
    if min(counts) >= 3:
        return weighted(image, *(areas(*side) for side in sides))
    return weighted(
        image, *(means(*side, count) for side, count in zip(sides, counts, strict=True))
    )


def made(image, height, width, **options):
    """What `crop.resize` makes, in memory that holds something else before."""
    out = np.full((height, width, image.shape[2]), 77, np.uint8)
    crop.resize(image, out, **options)
    return out


def assert_resized(found, expected):
    """To one grey level: samples and their mean are each rounded to whole numbers."""
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert np.abs(found - np.rint(expected)).max() <= 1
    assert found.size < 1000 or np.abs(found - expected).mean() < 0.45


def one_box(numbers, height, width, smallest):
    """Random resized crop of one image, attempt by attempt."""
    low, high = math.log(3 / 4), math.log(4 / 3)
    for share, shape in zip(numbers[:10], numbers[10:20], strict=True):
        area = (smallest + share * (1 - smallest)) * height * width
        ratio = math.exp(low + shape * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return (
                math.floor(numbers[20] * (height - h + 1)),
                math.floor(numbers[21] * (width - w + 1)),
                h,
                w,
            )
    h, w = height, width
    if width / height < 3 / 4:
        h = round(width / (3 / 4))
    elif width / height > 4 / 3:
        w = round(height * (4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


# --- boxes ----------------------------------------------------------------------------------------

lengths = st.integers(1, 5000)
shares = st.floats(0.001, 1)
seeds = st.integers(0, 2**32)


@given(height=lengths, width=lengths, smallest=shares, seed=seeds)
@example(height=1, width=5000, smallest=0.08, seed=0)
@example(height=5000, width=1, smallest=1.0, seed=0)
@example(height=100, width=100, smallest=1.0, seed=0)
def test_boxes_are_in_the_picture_and_as_large_and_wide_as_allowed(height, width, smallest, seed):
    numbers = np.random.default_rng(seed).random((20, crop.BOX_NUMBERS))
    sizes = np.tile([height, width], (20, 1))
    for found, mine in zip(
        crop.random_resized_boxes(numbers, sizes, smallest), numbers, strict=True
    ):
        top, left, h, w = found.tolist()
        assert (top, left, h, w) == one_box(mine, height, width, smallest)
        assert 0 <= top <= top + h <= height and 0 <= left <= left + w <= width and h and w
        # Rounding moves each side by up to half a pixel.
        assert (w - 0.5) / (h + 0.5) <= 4 / 3 + 1e-9 or h == height
        assert (w + 0.5) / (h - 0.5) >= 3 / 4 - 1e-9 or w == width
        if 3 / 4 <= width / height <= 4 / 3:  # otherwise the whole picture may be too wide
            assert (h + 0.5) * (w + 0.5) >= smallest * height * width * (1 - 1e-9)


def test_boxes_of_pictures_of_many_sizes_at_once():
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 600, (500, 2))
    numbers = generator.random((500, crop.BOX_NUMBERS))
    found = crop.random_resized_boxes(numbers, sizes, 0.5)
    expected = [one_box(n, *size, 0.5) for n, size in zip(numbers, sizes.tolist(), strict=True)]
    assert np.array_equal(found, expected)
    fallbacks = [not any(fits(n, *size)) for n, size in zip(numbers, sizes.tolist(), strict=True)]
    assert 20 < sum(fallbacks) < 480


def fits(numbers, height, width):
    for share, shape in zip(numbers[:10], numbers[10:20], strict=True):
        area, ratio = (
            (0.5 + share / 2) * height * width,
            math.exp((2 * shape - 1) * math.log(4 / 3)),
        )
        yield round(math.sqrt(area * ratio)) <= width and round(math.sqrt(area / ratio)) <= height


def test_boxes_are_spread_as_they_should():
    """Against draws that reject instead of trying ten times, from other random numbers."""
    count, side = 4000, 3000
    config = Augment(crop="random-resized", resize=32)
    augmentation = Augmentation(config, ANY_SIZE, 32)
    keys = augmentation_keys(0, 0, np.arange(count), 0)
    top, left, h, w = augmentation.draw(keys, np.full((count, 2), side), 1)["box"].T
    generator = np.random.default_rng(1)
    share = generator.uniform(0.08, 1, 4 * count)
    ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3), 4 * count))
    fit = (share * ratio <= 1) & (share / ratio <= 1)
    assert stats.ks_2samp(h * w / side**2, share[fit]).pvalue > UNLIKELY
    assert stats.ks_2samp(w / h, ratio[fit]).pvalue > UNLIKELY
    for place, length in ((top, h), (left, w)):
        roomy = length < side - 100
        places = (place[roomy] + 0.5) / (side - length[roomy] + 1)
        assert stats.kstest(places, "uniform").pvalue > UNLIKELY


@given(height=lengths, width=lengths, crop_size=st.integers(1, 256), seed=seeds)
def test_corners_are_in_the_resized_picture(height, width, crop_size, seed):
    sizes = np.tile([height, width], (20, 1))
    numbers = np.random.default_rng(seed).random((20, 2))
    numbers[0], numbers[1] = 0, np.nextafter(1, 0)
    corners = crop.random_corners(numbers, sizes, 256, crop_size)
    resized_size = crop.resized_sizes(sizes, 256)[0]
    assert resized_size.min() == 256
    assert resized_size.max() == math.floor(256 * max(height, width) / min(height, width))
    assert corners[0].tolist() == [0, 0]
    assert np.array_equal(corners[1] + crop_size, resized_size)
    assert (corners >= 0).all() and (corners + crop_size <= resized_size).all()


def test_corners_are_even():
    count = 20_000
    config = Augment(crop="resize-random", resize=16)
    augmentation = Augmentation(config, ANY_SIZE, 12)
    keys = augmentation_keys(0, 0, np.arange(count), 0)
    corners = augmentation.draw(keys, np.tile([300, 400], (count, 1)), 1)["box"]
    cells = corners[:, 0] * 10 + corners[:, 1]  # 5 rows, 21 - 12 + 1 = 10 columns
    assert stats.chisquare(np.bincount(cells, minlength=50)).pvalue > UNLIKELY


# --- pixels ---------------------------------------------------------------------------------------


SIZES = [
    *((224, 224), (100, 300), (427, 640), (600, 200), (1, 1), (450, 700)),
    *((190, 284), (200, 120), (341, 300), (50, 600), (600, 50), (71, 106), (9, 9), (512, 768)),
]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resize(height, width):
    image = WHOLE[0]
    assert_resized(made(image, height, width), resized(image, height, width))


@pytest.mark.parametrize("size", [(8, 8), (5, 3), (20, 31), (3, 20), (1, 1)])
def test_resize_grey(size):
    for image in digits():
        assert_resized(made(image, *size), resized(image, *size))


@given(
    top=st.integers(0, 426),
    left=st.integers(0, 639),
    height=st.integers(1, 427),
    width=st.integers(1, 640),
    size=st.tuples(st.integers(1, 260), st.integers(1, 260)),
    channels=st.sampled_from([1, 3]),
    mirrored=st.booleans(),
)
@example(top=0, left=0, height=1, width=1, size=(224, 224), channels=3, mirrored=True)
@example(top=0, left=0, height=427, width=3, size=(30, 260), channels=1, mirrored=False)
@example(top=0, left=0, height=250, width=450, size=(200, 200), channels=3, mirrored=True)
@example(top=0, left=0, height=5, width=5, size=(4, 4), channels=3, mirrored=False)
@example(top=0, left=0, height=9, width=9, size=(4, 4), channels=1, mirrored=True)
def test_any_box_at_any_size(top, left, height, width, size, channels, mirrored):
    box = WHOLE[1][top : top + height, left : left + width, :channels]
    expected = resized(box, *size)
    found = made(box, *size, mirrored=mirrored)
    assert_resized(found, expected[:, ::-1] if mirrored else expected)
    # A box of a picture and a picture of its own are the same.
    assert np.array_equal(found, made(np.ascontiguousarray(box), *size, mirrored=mirrored))


@pytest.mark.parametrize("whole", [(300, 450), (190, 285), (100, 640), (40, 60)])
def test_a_part_is_a_part_of_the_whole(whole):
    """Bit for bit, mirrored or not, at every corner."""
    for picture in (WHOLE[0], WHOLE[1][..., :1]):
        all_of_it = made(picture, *whole)
        for corner in ((0, 0), (7, 13), (whole[0] - 33, whole[1] - 46)):
            top, left = corner
            part = all_of_it[top : top + 33, left : left + 46]
            for mirrored in (False, True):
                found = made(picture, 33, 46, whole=whole, corner=corner, mirrored=mirrored)
                assert np.array_equal(found, part[:, ::-1] if mirrored else part)


VIEWS = {
    "turned": lambda a: np.swapaxes(a, 0, 1),
    "upside down": lambda a: a[::-1],
    "mirrored": lambda a: a[:, ::-1],
    "every other": lambda a: a[::2, ::2],
    "other colours": lambda a: a[..., ::-1],
}


@pytest.mark.parametrize("view", VIEWS)
def test_pictures_that_lie_otherwise_in_memory(view):
    picture = VIEWS[view](WHOLE[0])
    picture.flags.writeable = False
    for size in ((100, 100), (400, 700), (200, 250)):
        assert_resized(made(picture, *size), resized(picture, *size))


def test_resize_to_the_same_size_changes_nothing():
    assert np.array_equal(made(WHOLE[1], *WHOLE[1].shape[:2]), WHOLE[1])


@pytest.mark.parametrize("scale", [1.1, 1.24, 1.3, 1.8, 2, 2.2, 2.4, 3, 4.5, 6])
def test_smaller_pictures_are_smoothed(scale):
    """Near the mean over the area, and no further from Pillow's filter than that is."""
    picture = WHOLE[0]
    height, width = (round(side / scale) for side in picture.shape[:2])
    sides = ((picture.shape[0], height), (picture.shape[1], width))
    found = made(picture, height, width)
    area, triangle = (
        weighted(picture, *(kind(*side) for side in sides)) for kind in (areas, triangles)
    )
    sharp = weighted(picture, *(means(*side, 1) for side in sides))

    def distance(a, b):
        return np.abs(a - b).mean()

    assert distance(found, area) < 1.25
    assert distance(found, triangle) < distance(area, triangle) + 1.25
    if scale >= 1.5 and scale != 2:  # at 2 one sample is half way between two pixels
        assert distance(found, area) < 0.4 * distance(sharp, area)


def test_fine_lines_become_grey():
    """One sample would make broad stripes of them."""
    lines = np.tile(np.array([0, 255], np.uint8)[:, None], (300, 600))[..., None]
    for size in (440, 350, 300, 260, 190, 150, 100):
        found = made(lines, size, 600).astype(float)
        sharp = weighted(lines, means(600, size, 1), np.eye(600))
        broad = np.array([0.25, 0.5, 0.25])
        waves = [np.convolve(a[:, 0, 0], broad, "valid").std() for a in (found, sharp)]
        assert waves[0] < 25 and (waves[0] < 0.6 * waves[1] or waves[1] < 5)


def test_threads_of_opencv_change_nothing_and_are_not_used():
    from ba_dist.data.augment.opencv import cv2

    assert cv2.getNumThreads() == 1
    try:
        results = []
        for threads in (1, 2, 3):
            cv2.setNumThreads(threads)
            results.append([made(WHOLE[0], *size) for size in SIZES])
    finally:
        cv2.setNumThreads(1)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_random_resized_crop_is_the_box_resized():
    """Pixels beside the box do not count."""
    images = [WHOLE[i % 2] for i in range(6)]
    augmentation = Augmentation(Augment(crop="random-resized"), ANY_SIZE, 64)
    keys = augmentation_keys(0, 0, np.arange(6), 0)
    parameters = augmentation.draw(keys, sizes_of(images), 1)
    found = rendered(augmentation, images, parameters)
    for image, pixels, box in zip(images, found, parameters["box"], strict=True):
        top, left, height, width = box
        assert_resized(pixels, resized(image[top : top + height, left : left + width], 64, 64))


@pytest.mark.parametrize("turned", [False, True])
def test_resize_then_random_crop(turned):
    images = [np.swapaxes(w, 0, 1) if turned else w for w in (*WHOLE, *WHOLE)]
    augmentation = Augmentation(Augment(crop="resize-random", resize=80), ANY_SIZE, 64)
    keys = augmentation_keys(0, 0, np.arange(4), 0)
    parameters = augmentation.draw(keys, sizes_of(images), 1)
    found = rendered(augmentation, images, parameters)
    assert len({tuple(box) for box in parameters["box"].tolist()}) == 4
    for image, pixels, (top, left) in zip(images, found, parameters["box"], strict=True):
        whole = resized(image, *((119, 80) if turned else (80, 119)))  # 80 · 640 / 427 = 119.9
        assert_resized(pixels, whole[top : top + 64, left : left + 64])


@pytest.mark.parametrize("kind", ["random-resized", "resize-random"])
def test_evaluation_takes_the_middle(kind):
    augmentation = Augmentation(Augment(crop=kind), ANY_SIZE, 224)
    out = np.zeros((224, 224, 3), np.uint8)
    augmentation.plain(WHOLE[0], out)
    # 256 · 640 / 427 = 383.7: columns (383 - 224) / 2 = 79.5 → 80, rows (256 - 224) / 2 = 16
    assert_resized(out, resized(WHOLE[0], 256, 383)[16:240, 80:304])
    tall = np.swapaxes(WHOLE[0], 0, 1)
    augmentation.plain(tall, out)
    assert_resized(out, resized(tall, 383, 256)[80:304, 16:240])


@pytest.mark.parametrize(("length", "top"), [(224, 0), (225, 0), (226, 1), (227, 2), (229, 2)])
def test_the_middle_is_rounded_to_even(length, top):
    image = np.arange(length, dtype=np.uint8)[:, None, None].repeat(224, axis=1)
    out = np.zeros((224, 224, 1), np.uint8)
    crop.resize_shorter(image, out, shorter=224)
    assert np.array_equal(out, image[top : top + 224])
