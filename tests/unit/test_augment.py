"""Every transform alone and inside tf.data, against PIL and float64 on real pictures."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from scipy import stats
from sklearn.datasets import load_digits, load_sample_images

from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation, cutout, flip, normalise, pad_and_crop
from ba_dist.data.sources import DatasetInfo
from ba_dist.sampling import augmentation_keys

UNLIKELY = 1e-4


def photographs():
    """uint8 [12, 40, 56, 3]: pieces of the two photographs, whose sides differ."""
    pictures = load_sample_images().images
    corners = [(y, x) for y in (0, 150, 380) for x in (10, 580)]
    return np.stack([p[y : y + 40, x : x + 56] for p in pictures for y, x in corners])


def digits():
    """uint8 [12, 8, 8, 1]."""
    return (load_digits().images[:12, :, :, None] * 15.9).astype(np.uint8)


PICTURES = {"photographs": photographs(), "digits": digits()}
INFOS = {
    "photographs": DatasetInfo("p", (40, 56, 3), 10, (0.4914, 0.4822, 0.4465), (0.2, 0.25, 0.3)),
    "digits": DatasetInfo("d", (8, 8, 1), 10, (0.3053,), (0.3761,)),
}


def run(how, function, images, *parameters):
    """Calls a transform at once, or in tf.data on the same batch."""
    if how == "eager":
        return function(tf.constant(images), *map(tf.constant, parameters)).numpy()
    dataset = tf.data.Dataset.from_tensors((images, *parameters))
    return next(dataset.map(function).as_numpy_iterator())


@pytest.fixture(params=["eager", "tf.data"])
def how(request):
    return request.param


@pytest.fixture(params=PICTURES)
def name(request):
    return request.param


def draws(count, high, seed=0):
    """Integers 0 … high with both ends among them."""
    drawn = np.random.default_rng(seed).integers(0, high + 1, count).astype(np.int32)
    drawn[:2] = 0, high
    return drawn


# --- references: one image at a time --------------------------------------------------------------


def cropped(image, padding, top, left):
    picture = Image.fromarray(image.squeeze())
    height, width = image.shape[:2]
    padded = ImageOps.expand(picture, padding, fill=0)
    return np.array(padded.crop((left, top, left + width, top + height))).reshape(image.shape)


def mirrored(image):
    return np.array(ImageOps.mirror(Image.fromarray(image.squeeze()))).reshape(image.shape)


def scaled(image, info):
    return (image / 255.0 - np.array(info.mean)) / np.array(info.std)


def hole(shape, size, y, x):
    """True inside the square, pixel by pixel."""
    first_y, first_x = y - size // 2, x - size // 2
    return np.array(
        [
            [0 <= i - first_y < size and 0 <= j - first_x < size for j in range(shape[1])]
            for i in range(shape[0])
        ]
    )


# --- each alone -----------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [1, 4, 11])
def test_pad_and_crop(how, name, padding):
    images = PICTURES[name]
    tops, lefts = draws(len(images), 2 * padding), draws(len(images), 2 * padding, seed=1)
    found = run(how, lambda a, y, x: pad_and_crop(a, padding, y, x), images, tops, lefts)
    expected = [cropped(i, padding, y, x) for i, y, x in zip(images, tops, lefts, strict=True)]
    assert found.dtype == np.uint8 and np.array_equal(found, expected)


def test_crop_in_the_middle_changes_nothing(name):
    images = PICTURES[name]
    middle = np.full(len(images), 3, np.int32)
    assert np.array_equal(
        run("eager", lambda a, y: pad_and_crop(a, 3, y, y), images, middle), images
    )


def test_flip(how, name):
    images, flips = PICTURES[name], draws(len(PICTURES[name]), 1)
    found = run(how, flip, images, flips)
    expected = [mirrored(i) if f else i for i, f in zip(images, flips, strict=True)]
    assert found.dtype == np.uint8 and np.array_equal(found, expected)


def test_normalise(how, name):
    images, info = PICTURES[name], INFOS[name]
    found = run(how, lambda a: normalise(a, info.mean, info.std), images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [scaled(i, info) for i in images], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 5, 8, 9, 100])
def test_cutout(how, name, size):
    images = PICTURES[name].astype(np.float32) + 1
    _, height, width, _ = images.shape
    ys, xs = draws(len(images), height - 1), draws(len(images), width - 1, seed=1)
    found = run(how, lambda a, y, x: cutout(a, size, y, x), images, ys, xs)
    for image, result, y, x in zip(images, found, ys, xs, strict=True):
        inside = hole(image.shape, size, y, x)
        assert not result[inside].any() and np.array_equal(result[~inside], image[~inside])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_cutout_at_every_place_of_the_image(size):
    """One square, clipped at the border; its area by the closed form."""
    places = np.array(list(itertools.product(range(6), range(9))), np.int32)
    ones = tf.ones((len(places), 6, 9, 1))
    areas = (1 - cutout(ones, size, places[:, 0], places[:, 1]).numpy()).sum(axis=(1, 2, 3))
    low = places - size // 2
    sides = np.minimum(low + size, [6, 9]) - np.maximum(low, 0)
    assert np.array_equal(areas, sides.prod(axis=1))


# --- all together ------------------------------------------------------------------------------

ALL = Augment(pad_crop=4, flip=True, cutout=5)


def augmented(image, info, config, parameters):
    image = cropped(image, config.pad_crop, parameters["crop_y"], parameters["crop_x"])
    image = scaled(mirrored(image) if parameters["flip"] else image, info)
    inside = hole(image.shape, config.cutout, parameters["cutout_y"], parameters["cutout_x"])
    return np.where(inside[..., None], 0, image)


def drawn_for(name, config=ALL, count=12):
    augmentation = Augmentation(config, INFOS[name])
    return augmentation, augmentation.draw(augmentation_keys(3, 1, np.arange(count), 2))


def applied(how, augmentation, images, parameters):
    names = list(parameters)

    def function(batch, *values):
        return augmentation.apply(batch, dict(zip(names, values, strict=True)))

    return run(how, function, images, *parameters.values())


def test_the_whole_chain(how, name):
    augmentation, parameters = drawn_for(name)
    found = applied(how, augmentation, PICTURES[name], parameters)
    assert found.dtype == np.float32
    for i, image in enumerate(PICTURES[name]):
        mine = {key: values[i] for key, values in parameters.items()}
        expected = augmented(image, INFOS[name], ALL, mine)
        np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-6)
        assert np.array_equal(found[i] == 0, expected == 0)


def test_tf_data_gives_the_same_bits(name):
    augmentation, parameters = drawn_for(name)
    at_once, later = (
        applied(way, augmentation, PICTURES[name], parameters) for way in ("eager", "tf.data")
    )
    assert np.array_equal(at_once, later)


@pytest.mark.parametrize(
    "rows", [[0], [7], [3, 4, 5], [5, 3, 4], [2, 2, 9], list(range(11, -1, -1))]
)
def test_the_rest_of_the_batch_does_not_matter(how, name, rows):
    augmentation, parameters = drawn_for(name)
    whole = applied(how, augmentation, PICTURES[name], parameters)
    mine = {key: values[rows] for key, values in parameters.items()}
    part = applied(how, augmentation, PICTURES[name][rows], mine)
    assert np.array_equal(part, whole[rows])


def test_without_parameters_it_is_the_plain_image(how, name):
    """As evaluation wants it, whatever the recipe augments."""
    found = applied(how, Augmentation(ALL, INFOS[name]), PICTURES[name], {})
    expected = [scaled(image, INFOS[name]) for image in PICTURES[name]]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# --- draws --------------------------------------------------------------------------------------

COUNT = 20_000
RANGES = {"crop_y": 9, "crop_x": 9, "flip": 2, "cutout_y": 40, "cutout_x": 56}


def test_draws_are_even_over_their_ranges():
    _, parameters = drawn_for("photographs", count=COUNT)
    assert parameters.keys() == RANGES.keys()
    for key, values in parameters.items():
        assert values.dtype == np.int32 and values.min() == 0 and values.max() == RANGES[key] - 1
        counts = np.bincount(values, minlength=RANGES[key])
        assert stats.chisquare(counts).pvalue > UNLIKELY, key


def test_draws_are_independent_of_each_other():
    _, parameters = drawn_for("photographs", count=COUNT)
    for a, b in itertools.combinations(RANGES, 2):
        cells = parameters[a] * RANGES[b] + parameters[b]
        counts = np.bincount(cells, minlength=RANGES[a] * RANGES[b])
        assert stats.chisquare(counts).pvalue > UNLIKELY, (a, b)


def test_copies_of_a_sample_differ():
    augmentation = Augmentation(ALL, INFOS["photographs"])
    copies = augmentation.draw(augmentation_keys(0, 0, 17, np.arange(40)))
    assert len(set(zip(*(values.tolist() for values in copies.values()), strict=True))) == 40


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (Augment(), set()),
        (Augment(pad_crop=4), {"crop_y", "crop_x"}),
        (Augment(flip=True), {"flip"}),
        (Augment(cutout=5), {"cutout_y", "cutout_x"}),
    ],
)
def test_one_augmentation_does_not_move_the_draws_of_another(config, names):
    _, alone = drawn_for("photographs", config)
    _, together = drawn_for("photographs")
    assert set(alone) == names
    assert all(np.array_equal(values, together[key]) for key, values in alone.items())


def test_draws_are_these_for_ever():
    """A change makes old runs impossible to resume or to repeat."""
    _, parameters = drawn_for("photographs", count=3)
    assert {key: values.tolist() for key, values in parameters.items()} == {
        "crop_y": [8, 8, 1],
        "crop_x": [5, 1, 2],
        "flip": [1, 1, 0],
        "cutout_y": [12, 7, 6],
        "cutout_x": [11, 14, 23],
    }
