"""Colour: jitter of brightness, contrast and saturation, and PCA lighting.

Shape suffixes: n instances, H height, W width, C channels.
"""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.data.augment import operations
from ba_dist.data.augment.crop import Floats

_KINDS = (operations.brightness, operations.contrast, operations.color)
ORDERS = tuple(itertools.permutations(range(3)))

# How many random numbers `draw_jitter` needs for each instance: the order and three factors.
JITTER_NUMBERS = 4

# Principal components of the colours of ImageNet, RGB in 0 … 1: a column of vectors for each value.
_VALUES = np.array([0.2175, 0.0188, 0.0045])
_VECTORS = np.array(
    [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ]
)


def draw_jitter(numbers: Floats, strength: float) -> dict[str, npt.NDArray[Any]]:
    """Factors uniform in 1 ± strength, and the order in which they are applied.

    Args:
        numbers: uniform in [0, 1), float64 [n, JITTER_NUMBERS].
        strength: from 0 to 1.

    Returns:
        `jitter_order` int32 [n], an index of ORDERS; `jitter_factors` float64 [n, 3] for
        brightness, contrast and saturation.
    """
    order = np.floor(numbers[:, 0] * len(ORDERS)).astype(np.int32)
    factors = 1 + strength * (2 * numbers[:, 1:] - 1)
    return {"jitter_order": order, "jitter_factors": factors}


def jitter(pixels: operations.Pixels, order: int, factors: Floats) -> None:
    """Changes brightness, contrast and saturation of an image, in a given order.

    Args:
        pixels: of the image, changed.
        order: an index of ORDERS.
        factors: float64 [3]; 1 changes nothing, 0 leaves black, grey, or no colour.

    Source: Howard 2013, "Some Improvements on Deep Convolutional Neural Network Based Image
    Classification"; details as in torchvision's ColorJitter.
    """
    for kind in ORDERS[order]:
        _KINDS[kind](pixels, float(factors[kind]))


def lighting_offsets(numbers: Floats, deviation: float) -> npt.NDArray[np.float32]:
    """The offsets that PCA lighting adds to the channels of an image: Σ_j vector_j · value_j · α_j.

    Args:
        numbers: uniform in [0, 1), float64 [n, 3].
        deviation: standard deviation of the normal α.

    Returns:
        float32 [n, 3] for pixels in 0 … 255.

    Source: Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural
    Networks"; the values are those of fb.resnet.torch.
    """
    from scipy import special  # few recipes need it, and every rank would load it

    # The numbers are multiples of 2^-53; 0 would become minus infinity.
    alpha = deviation * special.ndtri(np.maximum(numbers, 2.0**-54))
    return (255 * (alpha * _VALUES) @ _VECTORS.T).astype(np.float32)
