"""MobileNet v1 (Howard et al. 2017, arXiv:1704.04861).

ReLU as in the paper, where later code cuts at 6. Initial weights are those of the code of "Augment
Your Batch" (convNet.pytorch, models/mobilenet.py). Kernels of depthwise convolutions are not
decayed (`models.tags`).
"""

from typing import Any

import keras

from ba_dist.models.layers.blocks import (
    Norm,
    conv,
    depthwise,
    logits,
    norm_relu,
    torch_default,
    torch_default_depthwise,
)

# (width, stride) of each pair of a depthwise and a pointwise convolution (table 1). The paper
# prints stride 2 for the last one as well, beside sizes that only stride 1 gives.
_PAIRS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *[(512, 1)] * 5,
    *((1024, 2), (1024, 1)),
)


def mobilenet(*, image_shape: tuple[int, int, int], classes: int, norm: Norm) -> Any:
    """A convolution, then 13 pairs of a depthwise and a pointwise one.

    Args:
        image_shape: (H, W, C).
        classes: how many logits.
        norm: makes a normalisation layer, called with its name.

    Returns:
        A Keras model: images [n, H, W, C] → logits [n, classes].
    """
    images = keras.Input(image_shape, name="images")
    x = conv(32, 3, 2, "stem", initializer=torch_default())(images)
    x = norm_relu(x, norm=norm, name="stem_norm")
    for i, (width, stride) in enumerate(_PAIRS):
        name = f"pair{i}"
        x = depthwise(3, stride, f"{name}_depth", initializer=torch_default_depthwise(3))(x)
        x = norm_relu(x, norm=norm, name=f"{name}_depth_norm")
        x = conv(width, 1, 1, f"{name}_point", initializer=torch_default())(x)
        x = norm_relu(x, norm=norm, name=f"{name}_point_norm")
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, logits(x, classes, torch_default()), name="mobilenet")
