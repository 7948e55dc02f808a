"""AutoAugment: learned policies of 25 sub-policies, each of two operations on an image.

Source: Cubuk et al. 2019, "AutoAugment: Learning Augmentation Policies from Data", appendix.
"""

import numpy as np
import numpy.typing as npt

from ba_dist.data.augment.crop import Floats
from ba_dist.data.augment.operations import OPERATIONS, Pixels

# (operation, probability in tenths, level from 0 to 9; None where the operation has no strength),
# twice.
Step = tuple[str, int, int | None]
Policy = tuple[tuple[Step, Step], ...]

CIFAR10: Policy = (
    (("Invert", 1, None), ("Contrast", 2, 6)),
    (("Rotate", 7, 2), ("TranslateX", 3, 9)),
    (("Sharpness", 8, 1), ("Sharpness", 9, 3)),
    (("ShearY", 5, 8), ("TranslateY", 7, 9)),
    (("AutoContrast", 5, None), ("Equalize", 9, None)),
    (("ShearY", 2, 7), ("Posterize", 3, 7)),
    (("Color", 4, 3), ("Brightness", 6, 7)),
    (("Sharpness", 3, 9), ("Brightness", 7, 9)),
    (("Equalize", 6, None), ("Equalize", 5, None)),
    (("Contrast", 6, 7), ("Sharpness", 6, 5)),
    (("Color", 7, 7), ("TranslateX", 5, 8)),
    (("Equalize", 3, None), ("AutoContrast", 4, None)),
    (("TranslateY", 4, 3), ("Sharpness", 2, 6)),
    (("Brightness", 9, 6), ("Color", 2, 8)),
    (("Solarize", 5, 2), ("Invert", 0, None)),
    (("Equalize", 2, None), ("AutoContrast", 6, None)),
    (("Equalize", 2, None), ("Equalize", 6, None)),
    (("Color", 9, 9), ("Equalize", 6, None)),
    (("AutoContrast", 8, None), ("Solarize", 2, 8)),
    (("Brightness", 1, 3), ("Color", 7, 0)),
    (("Solarize", 4, 5), ("AutoContrast", 9, None)),
    (("TranslateY", 9, 9), ("TranslateY", 7, 9)),
    (("AutoContrast", 9, None), ("Solarize", 8, 3)),
    (("Equalize", 8, None), ("Invert", 1, None)),
    (("TranslateY", 7, 9), ("AutoContrast", 9, None)),
)

IMAGENET: Policy = (
    (("Posterize", 4, 8), ("Rotate", 6, 9)),
    (("Solarize", 6, 5), ("AutoContrast", 6, None)),
    (("Equalize", 8, None), ("Equalize", 6, None)),
    (("Posterize", 6, 7), ("Posterize", 6, 6)),
    (("Equalize", 4, None), ("Solarize", 2, 4)),
    (("Equalize", 4, None), ("Rotate", 8, 8)),
    (("Solarize", 6, 3), ("Equalize", 6, None)),
    (("Posterize", 8, 5), ("Equalize", 10, None)),
    (("Rotate", 2, 3), ("Solarize", 6, 8)),
    (("Equalize", 6, None), ("Posterize", 4, 6)),
    (("Rotate", 8, 8), ("Color", 4, 0)),
    (("Rotate", 4, 9), ("Equalize", 6, None)),
    (("Equalize", 0, None), ("Equalize", 8, None)),
    (("Invert", 6, None), ("Equalize", 10, None)),
    (("Color", 6, 4), ("Contrast", 10, 8)),
    (("Rotate", 8, 8), ("Color", 10, 2)),
    (("Color", 8, 8), ("Solarize", 8, 7)),
    (("Sharpness", 4, 7), ("Invert", 6, None)),
    (("ShearX", 6, 5), ("Equalize", 10, None)),
    (("Color", 4, 0), ("Equalize", 6, None)),
    (("Equalize", 4, None), ("Solarize", 2, 4)),
    (("Solarize", 6, 5), ("AutoContrast", 6, None)),
    (("Invert", 6, None), ("Equalize", 10, None)),
    (("Color", 6, 4), ("Contrast", 10, 8)),
    (("Equalize", 8, None), ("Equalize", 6, None)),
)

POLICIES = {"cifar10": CIFAR10, "imagenet": IMAGENET}

# How many random numbers `draw` needs for each instance: the sub-policy, then for its two steps
# whether each is taken, then their signs.
NUMBERS = 5


def draw(numbers: Floats, policy: Policy) -> dict[str, npt.NDArray[np.int32]]:
    """The sub-policy of each instance, which of its two steps are taken, and their signs.

    Args:
        numbers: uniform in [0, 1), float64 [n, NUMBERS].
        policy: one of POLICIES.

    Returns:
        `auto_policy` int32 [n], the sub-policy; `auto_steps` int32 [n, 2], for each step 0 (not
        taken), 1 or -1 (taken, its strength with this sign).
    """
    chosen = np.floor(numbers[:, 0] * len(policy)).astype(np.int32)
    tenths = np.array([[step[1] for step in pair] for pair in policy])
    taken = 10 * numbers[:, 1:3] < tenths[chosen]
    signs = np.where(numbers[:, 3:5] < 0.5, -1, 1)
    return {"auto_policy": chosen, "auto_steps": np.where(taken, signs, 0).astype(np.int32)}


def apply(pixels: Pixels, pair: tuple[Step, Step], signs: npt.NDArray[np.int32]) -> None:
    """Applies the two steps of a sub-policy to an image.

    Args:
        pixels: of the image, changed.
        pair: the sub-policy.
        signs: int32 [2], the signs of the two steps, 0 for a step that is not taken.
    """
    for (operation, _, level), sign in zip(pair, signs.tolist(), strict=True):
        if sign:
            OPERATIONS[operation](pixels, level, sign)
