"""The densely connected networks of Huang et al. 2017 (arXiv:1608.06993), the BC form for CIFAR.

Initial weights are those of the paper's code (liuzhuang13/DenseNet, models/densenet.lua).
"""

from typing import Any

import keras

from ba_dist.models.layers.blocks import Norm, conv, he_fan_out, logits, norm_relu, torch_default


def densenet_bc(
    depth: int, growth: int, *, image_shape: tuple[int, int, int], classes: int, norm: Norm
) -> Any:
    """Three dense blocks of (depth - 4) / 6 layers; between them, half of the channels go on.

    Args:
        depth: 6n+4 for n ≥ 1.
        growth: channels that each layer adds (k).
        image_shape: (H, W, C), at least 4 pixels on a side.
        classes: how many logits.
        norm: makes a normalisation layer, called with its name.

    Returns:
        A Keras model: images [n, H, W, C] → logits [n, classes].
    """
    images = keras.Input(image_shape, name="images")
    x = conv(2 * growth, 3, 1, "stem", initializer=he_fan_out())(images)
    for block in range(3):
        if block > 0:
            name = f"transition{block}"
            x = _norm_relu_conv(x, x.shape[-1] // 2, 1, norm=norm, name=name)
            x = keras.layers.AveragePooling2D(2)(x)
        for layer in range((depth - 4) // 6):
            name = f"block{block}_layer{layer}"
            # Few channels first (B, the bottleneck), so that the 3x3 convolution costs little.
            y = _norm_relu_conv(x, 4 * growth, 1, norm=norm, name=f"{name}_narrow")
            y = _norm_relu_conv(y, growth, 3, norm=norm, name=f"{name}_grow")
            x = keras.layers.Concatenate()([x, y])
    x = keras.layers.GlobalAveragePooling2D()(norm_relu(x, norm=norm, name="last_norm"))
    return keras.Model(
        images, logits(x, classes, torch_default()), name=f"densenet{depth}-{growth}"
    )


def _norm_relu_conv(x: Any, width: int, size: int, *, norm: Norm, name: str) -> Any:
    x = norm_relu(x, norm=norm, name=f"{name}_norm")
    return conv(width, size, 1, f"{name}_conv", initializer=he_fan_out())(x)
