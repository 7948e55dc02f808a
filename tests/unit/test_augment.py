"""The chain of augmentation, alone and inside tf.data, against loops in float64."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation, cutout, normalise
from ba_dist.data.sources import ImageInfo
from ba_dist.errors import ConfigError, DataError
from ba_dist.rules.keys import augmentation_keys

from .photographs import ANY_SIZE, INFOS, PICTURES, UNLIKELY, WHOLE, rendered, run, sizes_of

GHOST = 4


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


# --- references: one image at a time, pixel by pixel ----------------------------------------------


def cropped(image, padding, top, left):
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return padded[top : top + image.shape[0], left : left + image.shape[1]]


def scaled(image, info, offset=0.0):
    return (image / 255.0 + offset - np.array(info.mean)) / np.array(info.std)


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
def test_pad_and_crop(name, padding):
    images = PICTURES[name]
    tops, lefts = draws(len(images), 2 * padding), draws(len(images), 2 * padding, seed=1)
    augmentation = Augmentation(Augment(pad_crop=padding), INFOS[name])
    found = rendered(augmentation, images, {"crop_y": tops, "crop_x": lefts})
    expected = [cropped(i, padding, y, x) for i, y, x in zip(images, tops, lefts, strict=True)]
    assert np.array_equal(found, expected)


def test_crop_in_the_middle_changes_nothing(name):
    images = PICTURES[name]
    middle = np.full(len(images), 3, np.int32)
    augmentation = Augmentation(Augment(pad_crop=3), INFOS[name])
    assert np.array_equal(
        rendered(augmentation, images, {"crop_y": middle, "crop_x": middle}), images
    )


def test_flip(name):
    images, flips = PICTURES[name], draws(len(PICTURES[name]), 1)
    found = rendered(Augmentation(Augment(flip=True), INFOS[name]), images, {"flip": flips})
    width = images.shape[2]
    for before, after, flipped in zip(images, found, flips, strict=True):
        for x in range(width):
            assert np.array_equal(after[:, x], before[:, width - 1 - x if flipped else x])


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


# --- all together ---------------------------------------------------------------------------------

OLD = Augment(pad_crop=4, flip=True, cutout=5)
MIXED = Augment(pad_crop=4, flip=True, cutout=5, mixup=0.3, cutmix=1.0)
EVERYTHING = Augment(
    crop="random-resized",
    resize=48,
    pad_crop=4,
    flip=True,
    auto_augment="imagenet",
    jitter=0.4,
    lighting=0.1,
    cutout=9,
    mixup=0.2,
    cutmix=1.0,
)


def keys_of(count):
    return augmentation_keys(3, 1, np.arange(count), 2)


def drawn_for(name, config=OLD, count=12):
    augmentation = Augmentation(config, INFOS[name])
    size = INFOS[name].image_shape[:2]
    return augmentation, augmentation.draw(keys_of(count), np.tile(size, (count, 1)), GHOST)


def finished(how, augmentation, images, parameters):
    """float32, from images to what the network sees."""
    pixels = rendered(augmentation, images, parameters)
    return run(how, augmentation.finish, pixels, augmentation.finish_parameters(parameters))


def augmented(image, info, config, parameters):
    image = cropped(image, config.pad_crop, parameters["crop_y"], parameters["crop_x"])
    image = scaled(image[:, ::-1] if parameters["flip"] else image, info)
    inside = hole(image.shape, config.cutout, parameters["cutout_y"], parameters["cutout_x"])
    return np.where(inside[..., None], 0, image)


def test_the_whole_chain(how, name):
    augmentation, parameters = drawn_for(name)
    found = finished(how, augmentation, PICTURES[name], parameters)
    assert found.dtype == np.float32
    for i, image in enumerate(PICTURES[name]):
        mine = {key: values[i] for key, values in parameters.items()}
        expected = augmented(image, INFOS[name], OLD, mine)
        np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-6)
        assert np.array_equal(found[i] == 0, expected == 0)


def test_the_chain_with_mixing(how, name):
    """The partner is mixed in as it is after cutout."""
    augmentation, parameters = drawn_for(name, MIXED)
    found = finished(how, augmentation, PICTURES[name], parameters)
    each = [
        augmented(image, INFOS[name], MIXED, {key: values[i] for key, values in parameters.items()})
        for i, image in enumerate(PICTURES[name])
    ]
    for i, mine in enumerate(each):
        other = each[i + parameters["mix_partner"][i]]
        share = np.full((*mine.shape[:2], 1), float(parameters["mix_pixels"][i]))
        top, left, bottom, right = parameters["mix_box"][i]
        share[top:bottom, left:right] = 0
        np.testing.assert_allclose(
            found[i], share * mine + (1 - share) * other, rtol=1e-5, atol=1e-5
        )


def everything(count=12):
    augmentation = Augmentation(EVERYTHING, INFOS["photographs"], 32)
    images = [WHOLE[i % 2][: 60 + 9 * i, : 200 - 11 * i] for i in range(count)]
    return augmentation, images, augmentation.draw(keys_of(count), sizes_of(images), GHOST)


def test_tf_data_gives_the_same_bits(name):
    for config in (OLD, MIXED):
        augmentation, parameters = drawn_for(name, config)
        at_once, later = (
            finished(way, augmentation, PICTURES[name], parameters) for way in ("eager", "tf.data")
        )
        assert at_once.tobytes() == later.tobytes()


def test_tf_data_gives_the_same_bits_of_everything():
    augmentation, images, parameters = everything()
    at_once, later = (
        finished(way, augmentation, images, parameters) for way in ("eager", "tf.data")
    )
    assert at_once.tobytes() == later.tobytes() and at_once.shape == (12, 32, 32, 3)


@pytest.mark.parametrize("rows", [[0], [7], [5, 3, 4], [2, 2, 9], list(range(11, -1, -1))])
def test_the_rest_of_the_batch_does_not_matter(how, name, rows):
    augmentation, parameters = drawn_for(name)
    whole = finished(how, augmentation, PICTURES[name], parameters)
    mine = augmentation.draw(keys_of(12)[rows], sizes_of(PICTURES[name][rows]), 1)
    part = finished(how, augmentation, PICTURES[name][rows], mine)
    assert np.array_equal(part, whole[rows])


@pytest.mark.parametrize("first", [0, 4, 8])
def test_only_the_ghost_batch_matters_to_mixing(first):
    augmentation, images, parameters = everything()
    whole = finished("eager", augmentation, images, parameters)
    rows = slice(first, first + GHOST)
    mine = augmentation.draw(keys_of(12)[rows], sizes_of(images[rows]), GHOST)
    assert np.array_equal(finished("eager", augmentation, images[rows], mine), whole[rows])


def test_threads_render_the_same():
    augmentation, images, parameters = everything(24)
    expected = rendered(augmentation, images, parameters)
    out = np.zeros_like(expected)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: augmentation.render(images[i], parameters, i, out[i]), range(24)))
    assert np.array_equal(out, expected)


def test_the_picture_is_left_as_it_was():
    augmentation, images, parameters = everything()
    before = [image.copy() for image in images]
    rendered(augmentation, images, parameters)
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True))


# --- evaluation -----------------------------------------------------------------------------------


def test_without_parameters_it_is_the_plain_image(how, name):
    """As evaluation wants it, whatever the recipe augments."""
    augmentation = Augmentation(MIXED, INFOS[name])
    out = np.zeros_like(PICTURES[name])
    for image, place in zip(PICTURES[name], out, strict=True):
        augmentation.plain(image, place)
    assert np.array_equal(out, PICTURES[name])
    found = run(how, augmentation.finish, out, {})
    expected = [scaled(image, INFOS[name]) for image in PICTURES[name]]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# --- draws ----------------------------------------------------------------------------------------

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


def test_every_augmentation_draws_numbers_of_its_own():
    """No two are correlated; a stream that is used twice would be."""
    augmentation = Augmentation(EVERYTHING, INFOS["photographs"], 32)
    count = 4000
    drawn = augmentation.draw(keys_of(count), np.tile([4000, 4000], (count, 1)), GHOST)
    independent = [drawn["box"][:, 0], drawn["auto_policy"], drawn["jitter_order"]]
    independent += [drawn[key] for key in ("crop_y", "crop_x", "flip", "cutout_y", "cutout_x")]
    independent += [*drawn["auto_steps"].T, *drawn["jitter_factors"].T, drawn["lighting"][:, 0]]
    independent += [drawn["mix_label"], drawn["mix_partner"]]
    correlations = np.corrcoef(np.array(independent))
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 5 / np.sqrt(count)


def test_copies_of_a_sample_differ():
    augmentation = Augmentation(OLD, INFOS["photographs"])
    keys = augmentation_keys(0, 0, 17, np.arange(40))
    copies = augmentation.draw(keys, np.tile([40, 56], (40, 1)), 1)
    assert len(set(zip(*(values.tolist() for values in copies.values()), strict=True))) == 40


ALONE = [
    ("pad_crop", {"crop_y", "crop_x"}),
    ("flip", {"flip"}),
    ("auto_augment", {"auto_policy", "auto_steps"}),
    ("jitter", {"jitter_order", "jitter_factors"}),
    ("lighting", {"lighting"}),
    ("cutout", {"cutout_y", "cutout_x"}),
]


@pytest.mark.parametrize(("field", "names"), [("none", set()), *ALONE])
def test_one_augmentation_does_not_move_the_draws_of_another(field, names):
    config = Augment(**{field: getattr(EVERYTHING, field)} if names else {})
    augmentation, alone = drawn_for("photographs", config)
    all_of_them = Augment(**{field: getattr(EVERYTHING, field) for field, _ in ALONE})
    _, together = drawn_for("photographs", all_of_them)
    assert set(alone) == names
    assert all(np.array_equal(values, together[key]) for key, values in alone.items())
    finishing = set(augmentation.finish_parameters(alone))
    assert finishing == names & {"lighting", "cutout_y", "cutout_x"}


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


def test_a_signature_can_be_made_of_any_keys():
    """Names, types and shapes do not depend on what is drawn."""
    augmentation, _, parameters = everything(8)
    zeros = augmentation.draw(np.zeros(8, np.uint64), np.ones((8, 2), np.int64), GHOST)
    for drawn in (parameters, zeros):
        finishing = augmentation.finish_parameters(drawn)
        shapes = {key: (values.dtype, values.shape) for key, values in finishing.items()}
        assert shapes == {
            "lighting": (np.float32, (8, 3)),
            "cutout_y": (np.int32, (8,)),
            "cutout_x": (np.int32, (8,)),
            "mix_partner": (np.int32, (8,)),
            "mix_label": (np.float32, (8,)),
            "mix_pixels": (np.float32, (8,)),
            "mix_box": (np.int32, (8, 4)),
        }


# --- what cannot work -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "size", "parts"),
    [
        (Augment(jitter=0.1), None, ["--jitter", "3 channels", "have 1"]),
        (Augment(lighting=0.1), None, ["--lighting", "3 channels", "have 1"]),
        (Augment(auto_augment="cifar10"), None, ["--auto-augment", "3 channels", "have 1"]),
        (Augment(rand_augment=1), None, ["--rand-augment", "3 channels", "have 1"]),
        (
            Augment(auto_augment="cifar10", rand_augment=2),
            *(None, ["--auto-augment cifar10 and --rand-augment 2 exclude each other"]),
        ),
        (Augment(crop="random-resized"), None, ["--image-size"]),
        (Augment(crop="resize-random", resize=100), 101, ["--resize 100", "--image-size 101"]),
    ],
)
def test_configurations_that_do_not_work(config, size, parts):
    with pytest.raises(ConfigError) as caught:
        Augmentation(config, INFOS["digits"], size)
    assert not [part for part in parts if part not in str(caught.value)]


def test_channels_that_no_picture_has():
    info = ImageInfo("many", (0, 0, 4), 10, (0.5,) * 4, (0.2,) * 4)
    with pytest.raises(ConfigError, match="1 or 3 channels; those of many have 4"):
        Augmentation(Augment(crop="random-resized"), info, 32)
    assert Augmentation(Augment(), info, 32).image_shape == (32, 32, 4)


def test_pictures_of_another_size_need_a_crop():
    augmentation = Augmentation(Augment(flip=True), ANY_SIZE, 32)
    assert augmentation.image_shape == (32, 32, 3)
    out = np.zeros((32, 32, 3), np.uint8)
    for image in (np.zeros((32, 33, 3), np.uint8), np.zeros((1, 1, 3), np.uint8)):
        with pytest.raises(DataError, match="the network takes 32x32x3; --crop"):
            augmentation.plain(image, out)
        with pytest.raises(DataError, match="the network takes 32x32x3; --crop"):
            augmentation.render(image, {"flip": np.array([0])}, 0, out)
