"""Each operation of AutoAugment against numpy and scipy, and how the policies are drawn."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats

from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation, auto_augment
from ba_dist.data.augment.operations import OPERATIONS, SIGNED, Pixels
from ba_dist.rules.keys import augmentation_keys

from .photographs import INFOS, PICTURES, UNLIKELY, WHOLE, rendered

PHOTOGRAPHS = PICTURES["photographs"]
GEOMETRY = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}
ENHANCE = {"Contrast", "Color", "Brightness", "Sharpness"}
NEAR = (0, -1e-4, 1e-4)
WITHOUT_LEVEL = {"AutoContrast", "Equalize", "Invert"}
POLICIES = pytest.mark.parametrize("name", auto_augment.POLICIES)


def done(operation, image, level=None, sign=1):
    pixels, out = Pixels(image), np.full_like(image, 77)
    OPERATIONS[operation](pixels, level, sign)
    pixels.write(out)
    return out


# --- references -----------------------------------------------------------------------------------


def moved(image, matrix):
    """Nearest pixel of x' = matrix · (x, y, 1), zeros outside; by scipy, channel by channel."""
    (a, b, c), (d, e, f) = matrix
    # scipy counts from the middle of the first pixel, and y before x.
    linear = np.array([[e, d], [b, a]])
    offset = linear @ [0.5, 0.5] + [f, c] - 0.5
    bands = [
        ndimage.affine_transform(band, linear, offset, order=0, mode="grid-constant")
        for band in np.moveaxis(image, 2, 0)
    ]
    return np.stack(bands, axis=2)


def turned(image, degrees):
    """Counterclockwise about the middle of the image."""
    angle, (height, width) = np.deg2rad(degrees), image.shape[:2]
    cos, sin, x, y = np.cos(angle), np.sin(angle), width / 2, height / 2
    return moved(image, [(cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y)])


def blend(base, image, factor):
    return np.clip(base + factor * (image.astype(float) - base), 0, 255)


def smoothed(image):
    """Mean of 3x3 with five times the middle; the border stays."""
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]])[..., None] / 13
    inner = np.rint(ndimage.convolve(image.astype(float), kernel))
    expected = image.astype(float)
    expected[1:-1, 1:-1] = inner[1:-1, 1:-1]
    return expected


def base_of(operation, image):
    """What an enhancement moves the image away from."""
    grey = np.rint(image @ [0.299, 0.587, 0.114])[..., None]
    if operation == "Contrast":
        return np.floor(grey.mean() + 0.5)
    return {"Color": grey, "Brightness": 0.0, "Sharpness": smoothed(image)}[operation]


def equalised(band):
    """Each value becomes the share of smaller pixels, so that all are as frequent."""
    counts = np.bincount(band.ravel(), minlength=256)
    step = (band.size - counts[band.max()]) // 255
    if step == 0 or np.count_nonzero(counts) == 1:
        return band
    smaller = np.cumsum(counts) - counts
    return np.minimum((smaller + step // 2) // step, 255)[band]


def by_pillow(operation, image, level, sign):
    """The same operation as Pillow does it."""
    picture = Image.fromarray(image)
    if operation in ENHANCE:
        factor = 1 + sign * 0.9 * level / 9
        return np.asarray(getattr(ImageEnhance, operation)(picture).enhance(factor))
    strength, (width, height) = sign * 0.3 * (level or 0) / 9, picture.size
    made = {
        "Rotate": lambda: picture.rotate(100 * strength),
        "ShearX": lambda: affine(1, strength, 0, 0, 1, 0),
        "ShearY": lambda: affine(1, 0, 0, strength, 1, 0),
        "TranslateX": lambda: affine(1, 0, -sign * int(150 / 331 * width * level / 9), 0, 1, 0),
        "TranslateY": lambda: affine(1, 0, 0, 0, 1, -sign * int(150 / 331 * height * level / 9)),
        "Solarize": lambda: ImageOps.solarize(picture, 255 * (9 - level) / 9),
        "Posterize": lambda: ImageOps.posterize(picture, 8 - round(level * 4 / 9)),
        "AutoContrast": lambda: ImageOps.autocontrast(picture),
        "Equalize": lambda: ImageOps.equalize(picture),
        "Invert": lambda: ImageOps.invert(picture),
    }

    def affine(*inverse):
        kind = Image.Transform.AFFINE
        return picture.transform(picture.size, kind, inverse, Image.Resampling.NEAREST)

    return np.asarray(made[operation]())


# --- operations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
def test_as_pillow_does(operation):
    """To one grey level; and the same pixel, but where two are as near."""
    for image in (*PHOTOGRAPHS, WHOLE[1], PHOTOGRAPHS[0][:2, :1], PHOTOGRAPHS[1][:1]):
        for level in (None,) if operation in WITHOUT_LEVEL else range(10):
            for sign in (1, -1) if operation in SIGNED else (1,):
                found = done(operation, image, level, sign).astype(int)
                if operation in {"Rotate", "ShearX", "ShearY"}:
                    near = (by_pillow(operation, image, level * (1 + d), sign) for d in NEAR)
                    equal = np.any([np.all(found == one, axis=2) for one in near], axis=0)
                    assert np.mean(equal) > 0.999
                else:
                    assert np.abs(found - by_pillow(operation, image, level, sign)).max() <= 1


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("level", range(10))
def test_shear_and_rotate(level, sign):
    """Where two pixels are as near, either will do: the reference is taken a little off."""

    def right(operation, image, reference, strength):
        found = done(operation, image, level, sign)
        near = [reference(image, strength * (1 + bit)) for bit in (-1e-4, 1e-4)]
        equal = [np.all(found == expected, axis=2) for expected in near]
        return np.mean(equal[0] | equal[1]) > 0.999

    for image in PHOTOGRAPHS[::4]:
        slope = sign * 0.3 * level / 9
        assert right("ShearX", image, lambda a, m: moved(a, [(1, m, 0), (0, 1, 0)]), slope)
        assert right("ShearY", image, lambda a, m: moved(a, [(1, 0, 0), (m, 1, 0)]), slope)
        assert right("Rotate", image, turned, sign * 30 * level / 9)


@pytest.mark.parametrize("level", range(10))
def test_translate(level):
    """By whole pixels, of the side in whose direction it goes."""
    for image in PHOTOGRAPHS[::4]:
        x, y = (int(150 / 331 * side * level / 9) for side in (56, 40))
        padded = np.pad(image, ((y, y), (x, x), (0, 0)))
        for sign in (1, -1):
            left, top = x - sign * x, y - sign * y
            assert np.array_equal(
                done("TranslateX", image, level, sign), padded[y : y + 40, left : left + 56]
            )
            assert np.array_equal(
                done("TranslateY", image, level, sign), padded[top : top + 40, x : x + 56]
            )


def test_translate_on_cifar_is_up_to_14_pixels():
    assert not done("TranslateX", np.full((32, 32, 3), 9, np.uint8), 9, 1)[:, :14].any()
    assert done("TranslateX", np.full((32, 32, 3), 9, np.uint8), 9, 1)[:, 14:].all()


@pytest.mark.parametrize("operation", sorted(ENHANCE))
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("level", [0, 4, 9])
def test_enhancements(operation, level, sign):
    for image in PHOTOGRAPHS:
        expected = blend(base_of(operation, image), image, 1 + sign * 0.9 * level / 9)
        error = np.abs(done(operation, image, level, sign) - np.floor(expected + 1e-3))
        # Whether a colour's grey is rounded up may depend on its last bit.
        assert error.max() <= 1 and error.mean() < 0.05


@pytest.mark.parametrize("level", range(10))
def test_solarize_and_posterize(level):
    threshold = 255 * (9 - level) / 9
    keep = 2 ** (8 - [8, 8, 7, 7, 6, 6, 5, 5, 4, 4][level])
    for image in PHOTOGRAPHS:
        assert np.array_equal(
            done("Solarize", image, level), np.where(image < threshold, image, 255 - image)
        )
        assert np.array_equal(done("Posterize", image, level), image // keep * keep)


def test_invert_auto_contrast_and_equalize():
    flat = np.full((4, 5, 3), 77, np.uint8)
    for image in (*PHOTOGRAPHS, WHOLE[0], flat):
        assert np.array_equal(done("Invert", image), 255 - image)
        low, high = image.min(axis=(0, 1)).astype(float), image.max(axis=(0, 1))
        span = np.where(high > low, high - low, 1)
        stretched = np.where(high > low, (image - low) * 255 / span, image)
        assert np.abs(done("AutoContrast", image) - stretched).max() <= 1
        expected = np.stack([equalised(band) for band in np.moveaxis(image, 2, 0)], axis=2)
        assert np.array_equal(done("Equalize", image), expected)


# --- policies -------------------------------------------------------------------------------------


@POLICIES
def test_the_tables_are_whole(name):
    policy = auto_augment.POLICIES[name]
    assert len(policy) == 25
    used = set()
    for operation, tenths, level in [step for pair in policy for step in pair]:
        used.add(operation)
        assert operation in OPERATIONS and tenths in range(11)
        assert level is None if operation in WITHOUT_LEVEL else level in range(10)
    absent = {
        "cifar10": {"ShearX"},
        "imagenet": {"ShearY", "TranslateX", "TranslateY", "Brightness"},
    }
    assert used == set(OPERATIONS) - absent[name]


@POLICIES
def test_every_sub_policy_is_its_steps_one_after_the_other(name):
    config = Augment(auto_augment=name)
    augmentation = Augmentation(config, INFOS["photographs"])
    image = PHOTOGRAPHS[3]
    for index, pair in enumerate(auto_augment.POLICIES[name]):
        for signs in ([0, 0], [1, 0], [0, -1], [-1, 1]):
            parameters = {"auto_policy": np.array([index]), "auto_steps": np.array([signs])}
            (found,) = rendered(augmentation, [image], parameters)
            expected = image
            for (operation, _, level), sign in zip(pair, signs, strict=True):
                if sign:
                    expected = done(operation, expected, level, sign)
            assert np.array_equal(found, expected)


def test_tables_one_after_the_other_are_the_operations_one_after_the_other():
    """All pairs and some threes, though the pixels are looked up once."""
    names, image = sorted(OPERATIONS), PHOTOGRAPHS[7]
    threes = np.random.default_rng(0).choice(names, (60, 3)).tolist()
    for chain in [*itertools.product(names, names), *threes]:
        pixels, out, expected = Pixels(image), np.zeros_like(image), image
        for name in chain:
            OPERATIONS[name](pixels, 7, -1)
            expected = done(name, expected, 7, -1)
        pixels.write(out)
        assert np.array_equal(out, expected), chain


def test_an_image_is_changed_in_its_own_memory_and_no_other():
    image = PHOTOGRAPHS[2].copy()
    for name in OPERATIONS:
        pixels, out = Pixels(image), image.copy()
        OPERATIONS[name](pixels, 9, 1)
        assert np.array_equal(image, PHOTOGRAPHS[2]), name
        own = Pixels(out)
        OPERATIONS[name](own, 9, 1)
        own.write(out)
        assert np.array_equal(out, done(name, image, 9, 1)), name


def test_auto_augment_sees_the_flipped_image():
    """TranslateX to the right is to the right after the flip."""
    config = Augment(flip=True, auto_augment="cifar10")
    image = PHOTOGRAPHS[0]
    augmentation = Augmentation(config, INFOS["photographs"])
    parameters = {"flip": np.array([1]), "auto_policy": np.array([1])}
    parameters["auto_steps"] = np.array([[0, 1]])  # not rotated, then TranslateX of 25 pixels
    (found,) = rendered(augmentation, [image], parameters)
    assert not found[:, :25].any() and np.array_equal(found[:, 25:], image[:, ::-1][:, :31])


@POLICIES
def test_draws_are_as_likely_as_the_table_says(name):
    count, policy = 50_000, auto_augment.POLICIES[name]
    augmentation = Augmentation(Augment(auto_augment=name), INFOS["photographs"])
    keys = augmentation_keys(0, 0, np.arange(count), 0)
    parameters = augmentation.draw(keys, np.tile([40, 56], (count, 1)), 1)
    chosen, steps = parameters["auto_policy"], parameters["auto_steps"]
    assert stats.chisquare(np.bincount(chosen, minlength=25)).pvalue > UNLIKELY
    assert set(np.unique(steps)) == {-1, 0, 1}
    for index, pair in enumerate(policy):
        for place, (_, tenths, _) in enumerate(pair):
            mine = steps[chosen == index, place]
            taken = np.count_nonzero(mine)
            assert stats.binomtest(taken, len(mine), tenths / 10).pvalue > UNLIKELY
            if taken:
                positive = np.count_nonzero(mine == 1)
                assert stats.binomtest(positive, taken, 0.5).pvalue > UNLIKELY
    both = stats.contingency.crosstab(
        steps[:, 0][steps.all(axis=1)], steps[:, 1][steps.all(axis=1)]
    )
    assert stats.chisquare(both.count.ravel()).pvalue > UNLIKELY
