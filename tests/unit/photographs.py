"""Real pictures for tests of augmentation, and two ways to call what is TensorFlow."""

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits, load_sample_images

from ba_dist.data.sources import ImageInfo

# What happens less often than this by chance, in a test of statistics, is taken for an error.
UNLIKELY = 1e-4

WHOLE = load_sample_images().images  # two photographs, uint8 [427, 640, 3]


def pieces():
    """uint8 [12, 40, 56, 3]: pieces of the two photographs, whose sides differ."""
    corners = [(y, x) for y in (0, 150, 380) for x in (10, 580)]
    return np.stack([p[y : y + 40, x : x + 56] for p in WHOLE for y, x in corners])


def digits():
    """uint8 [12, 8, 8, 1]."""
    return (load_digits().images[:12, :, :, None] * 15.9).astype(np.uint8)


PICTURES = {"photographs": pieces(), "digits": digits()}
INFOS = {
    "photographs": ImageInfo("p", (40, 56, 3), 10, (0.4914, 0.4822, 0.4465), (0.2, 0.25, 0.3)),
    "digits": ImageInfo("d", (8, 8, 1), 10, (0.3053,), (0.3761,)),
}
ANY_SIZE = ImageInfo("any", (0, 0, 3), 10, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def run(how, function, *arguments):
    """Calls a function of tensors (or dictionaries of them) at once, or in tf.data."""
    if how == "eager":
        tensors = tf.nest.map_structure(tf.constant, arguments)
        return function(*tensors).numpy()
    dataset = tf.data.Dataset.from_tensors(arguments)
    return next(dataset.map(function).as_numpy_iterator())


def rendered(augmentation, images, parameters):
    """The uint8 pixels of every instance."""
    out = np.full((len(images), *augmentation.image_shape), 77, np.uint8)
    for i, image in enumerate(images):
        augmentation.render(image, parameters, i, out[i])
    return out


def sizes_of(images):
    """int64 [n, 2]."""
    return np.array([image.shape[:2] for image in images], np.int64).reshape(-1, 2)
