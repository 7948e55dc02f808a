"""RandAugment: N operations, each drawn anew from 14, all of one magnitude M.

    T = T_N ∘ … ∘ T_1,    each T_i even among the 14, its direction even among the two it may have

M is on the paper's scale, where 10 is the strongest of AutoAugment: an operation's level is 9·M/10.

Source: Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search
space", section 3. As in torchvision, colours change in both directions, and a larger M is a
stronger change for every operation.
"""

import numpy as np
import numpy.typing as npt

from ba_dist.data.augment.crop import Floats
from ba_dist.data.augment.operations import OPERATIONS, SIGNED, Pixels

Integers = npt.NDArray[np.int32]

# What is drawn is an index: another order would be other augmentations.
NAMES = (
    *("Identity", "AutoContrast", "Equalize", "Rotate", "Solarize", "Color", "Posterize"),
    *("Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY"),
)
# How many random numbers `draw` needs for each operation: which one it is, then its sign.
NUMBERS = 2


def draw(numbers: Floats) -> dict[str, Integers]:
    """The operations of each instance and their signs.

    Args:
        numbers: uniform in [0, 1), float64 [n, N · NUMBERS].

    Returns:
        `rand_operations` int32 [n, N], each of 0 … 13; `rand_signs` int32 [n, N], -1 or 1, or 0
        where the operation has one direction only.
    """
    each = numbers.reshape(len(numbers), -1, NUMBERS)
    operations = np.floor(each[..., 0] * len(NAMES)).astype(np.int32)
    signed = np.array([name in SIGNED for name in NAMES])[operations]
    signs = np.where(signed, np.where(each[..., 1] < 0.5, -1, 1), 0)
    return {"rand_operations": operations, "rand_signs": signs.astype(np.int32)}


def apply(pixels: Pixels, operations: Integers, signs: Integers, magnitude: int) -> None:
    """Applies one operation after the other to an image.

    Args:
        pixels: of the image, changed.
        operations: [N], as drawn.
        signs: [N], as drawn.
        magnitude: M.
    """
    for index, sign in zip(operations.tolist(), signs.tolist(), strict=True):
        if NAMES[index] != "Identity":
            OPERATIONS[NAMES[index]](pixels, 9 * magnitude / 10, sign)
