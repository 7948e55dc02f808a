"""Mixup and CutMix: an instance is mixed with another instance of its ghost batch.

The partner follows from the instance's key and its position in the ghost batch, which follows from
the epoch's order. So it is the same for every layout of the ranks.

Shape suffixes: n instances, H height, W width, C channels.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.data.augment.crop import Floats, Integers
from ba_dist.errors import ConfigError
from ba_dist.rules.keys import Purpose, combine

# How many random numbers `draw` needs for each instance: partner, mixup or CutMix, λ, and the
# centre of the box (y, x).
NUMBERS = 5
# Manifold mixup needs two, partner and λ. It mixes the images or what comes out of the first or of
# the second stage of a network, as in its paper.
MANIFOLD_NUMBERS, MANIFOLD_LAYERS = 2, 3


def draw(
    numbers: Floats, *, mixup: float, cutmix: float, ghost_batch: int, height: int, width: int
) -> dict[str, npt.NDArray[Any]]:
    """Draws the partner of each instance, and how the two are mixed.

    λ ~ Beta(α, α). Mixup gives λ·x + (1-λ)·partner. CutMix fills a box of √(1-λ) of the height and
    width, anywhere, clipped at the border, with the partner's pixels, and λ is the share that is
    left. Where both are wanted, each instance takes one of them with probability 1/2.

    Args:
        numbers: uniform in [0, 1), float64 [n, NUMBERS]; n is a multiple of `ghost_batch`.
        mixup: α of mixup, 0 for none.
        cutmix: α of CutMix, 0 for none.
        ghost_batch: number of consecutive instances in a ghost batch.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        `mix_partner` int32 [n], how many rows further on the partner is; `mix_label` float32 [n],
        the share of the instance's own label; `mix_pixels` float32 [n], the share of its own
        pixels outside of the box; with CutMix, `mix_box` int32 [n, 4] (top, left, bottom, right;
        bottom and right are outside).

    Raises:
        ConfigError: when a ghost batch has only one instance.

    Sources: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"; Yun et al. 2019,
    "CutMix".
    """
    from scipy import special  # few recipes need it, and every rank would load it

    partner = partners(numbers[:, 0], ghost_batch)
    cut = np.full(len(numbers), cutmix > 0) if not (mixup and cutmix) else numbers[:, 1] < 0.5
    alpha = np.where(cut, cutmix, mixup)
    weight = special.betaincinv(alpha, alpha, numbers[:, 2])
    drawn: dict[str, npt.NDArray[Any]] = {
        "mix_partner": partner.astype(np.int32),
        "mix_label": weight.astype(np.float32),
        "mix_pixels": np.where(cut, 1, weight).astype(np.float32),
    }
    if cutmix:
        box = np.where(cut[:, None], boxes(weight, numbers[:, 3:5], height, width), 0)
        area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        left = 1 - area / (height * width)
        drawn["mix_label"] = np.where(cut, left, weight).astype(np.float32)
        drawn["mix_box"] = box.astype(np.int32)
    return drawn


def partners(numbers: Floats, ghost_batch: int) -> Integers:
    """How many rows further on (or back) the partner of each instance is.

    In a ghost batch of g the partner is at (position + 1 + ⌊u·(g - 1)⌋) mod g: any other instance,
    each with the same probability.

    Args:
        numbers: u, float64 [n].
        ghost_batch: g.

    Returns:
        int64 [n], from 1-g to g-1, never 0.
    """
    if ghost_batch < 2:
        raise ConfigError(
            "--mixup, --cutmix and --manifold-mixup mix instances of one ghost batch, which holds"
            f" {ghost_batch} here; use a --ghost-batch-size (and a --batch-size per group) of at"
            " least 2"
        )
    if len(numbers) % ghost_batch:
        raise ValueError(f"{len(numbers)} instances are not whole ghost batches of {ghost_batch}")
    position = np.arange(len(numbers)) % ghost_batch
    step = 1 + np.floor(numbers * (ghost_batch - 1)).astype(np.int64)
    return (position + step) % ghost_batch - position


def boxes(weight: Floats, centres: Floats, height: int, width: int) -> Integers:
    """CutMix's boxes: √(1-λ) of each side, centred at any pixel, clipped at the border.

    Args:
        weight: λ, float64 [n].
        centres: uniform in [0, 1), float64 [n, 2].

    Returns:
        int64 [n, 4]: top, left, bottom, right.
    """
    size = np.array([height, width])
    middle = np.floor(centres * size).astype(np.int64)
    half = np.floor(size * np.sqrt(1 - weight)[:, None]).astype(np.int64) // 2
    return np.hstack([np.maximum(middle - half, 0), np.minimum(middle + half, size)])


def draw_manifold(
    numbers: Floats, *, alpha: float, ghost_batch: int
) -> dict[str, npt.NDArray[Any]]:
    """Draws the partner of each instance for manifold mixup, and λ ~ Beta(α, α).

    Args:
        numbers: uniform in [0, 1), float64 [n, 2]; n is a multiple of `ghost_batch`.
        alpha: α.
        ghost_batch: number of consecutive instances in a ghost batch.

    Returns:
        `manifold_partner` int32 [n], how many rows further on the partner is; `manifold_weight`
        float32 [n], the share λ of the instance's own activations and label.

    Raises:
        ConfigError: when a ghost batch has only one instance.
    """
    from scipy import special

    return {
        "manifold_partner": partners(numbers[:, 0], ghost_batch).astype(np.int32),
        "manifold_weight": special.betaincinv(alpha, alpha, numbers[:, 1]).astype(np.float32),
    }


def manifold_layer(seed: int, step: int) -> int:
    """At which of a network's marked layers a step mixes, each with the same probability."""
    return int(combine(Purpose.LAYER, seed, step) % np.uint64(MANIFOLD_LAYERS))


def mix_rows(rows: Any, partner: Any, weight: Any) -> Any:
    """λ·row + (1-λ)·the partner's row, of the dtype of the rows.

    Args:
        rows: tensor [n, …] of floats.
        partner: int32 [n], how many rows further on the partner is.
        weight: λ, [n].
    """
    import tensorflow as tf

    share = tf.reshape(tf.cast(weight, rows.dtype), [-1] + [1] * (len(rows.shape) - 1))
    return share * rows + (1 - share) * _of_partners(rows, {"mix_partner": partner})


def mix(images_nHWC: Any, parameters: dict[str, Any]) -> Any:
    """Mixes every image with the unmixed image of its partner.

    Args:
        images_nHWC: float32 [n, H, W, C].
        parameters: from `draw`.

    Returns:
        float32 [n, H, W, C].
    """
    import tensorflow as tf

    _, height, width, _ = images_nHWC.shape
    others_nHWC = _of_partners(images_nHWC, parameters)
    weight = parameters["mix_pixels"][:, None, None, None]
    if "mix_box" in parameters:
        top, left, bottom, right = tf.unstack(parameters["mix_box"][:, :, None], axis=1)
        rows_nH = (tf.range(height) >= top) & (tf.range(height) < bottom)
        columns_nW = (tf.range(width) >= left) & (tf.range(width) < right)
        inside = rows_nH[:, :, None, None] & columns_nW[:, None, :, None]
        weight = tf.where(inside, 0.0, weight)
    return weight * images_nHWC + (1 - weight) * others_nHWC


def mix_targets(targets: Any, parameters: dict[str, Any]) -> Any:
    """λ·target + (1-λ)·the partner's target, float32 [n, classes]."""
    weight = parameters["mix_label"][:, None]
    return weight * targets + (1 - weight) * _of_partners(targets, parameters)


def _of_partners(rows: Any, parameters: dict[str, Any]) -> Any:
    import tensorflow as tf

    partner = parameters["mix_partner"]
    return tf.gather(rows, tf.range(tf.shape(partner)[0]) + partner)
