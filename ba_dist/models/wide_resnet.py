"""The wide residual networks of Zagoruyko and Komodakis 2016 (arXiv:1605.07146).

Blocks normalise before they convolve (He et al. 2016, "Identity Mappings"); a shortcut is a 1x1
convolution of the normalised input where the shape changes. Dropout in the blocks is off, as in
"Augment Your Batch".
"""

from typing import Any

import keras

from ba_dist.models.layers.blocks import Norm, conv, he_fan_out, logits, norm_relu, torch_default
from ba_dist.models.layers.manifold_mixup import marked


def wide_resnet(
    depth: int,
    factor: int,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    norm: Norm,
    manifold_mixup: bool = False,
) -> Any:
    """Three stages of (depth - 4) / 6 blocks, of widths 16, 32 and 64 times the factor (table 1).

    Args:
        depth: 6n+4 for n ≥ 1.
        factor: how many times wider than a thin network.
        image_shape: (H, W, C).
        classes: how many logits.
        norm: makes a normalisation layer, called with its name.
        manifold_mixup: whether it has layers at which activations may be mixed.

    Returns:
        A Keras model: images [n, H, W, C] → logits [n, classes].
    """
    images = keras.Input(image_shape, name="images")
    x = marked(images, 0, manifold_mixup)
    x = conv(16, 3, 1, "stem", initializer=he_fan_out())(x)
    for stage in range(3):
        for block in range((depth - 4) // 6):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"stage{stage}_block{block}"
            x = _block(x, 16 * factor * 2**stage, stride, norm=norm, name=name)
        x = marked(x, stage + 1, manifold_mixup and stage < 2)
    x = keras.layers.GlobalAveragePooling2D()(norm_relu(x, norm=norm, name="last_norm"))
    return keras.Model(images, logits(x, classes, torch_default()), name=f"wrn{depth}-{factor}")


def _block(x: Any, width: int, stride: int, *, norm: Norm, name: str) -> Any:
    y = norm_relu(x, norm=norm, name=f"{name}_norm0")
    if x.shape[-1] != width:
        x = conv(width, 1, stride, f"{name}_shortcut", initializer=he_fan_out())(y)
    y = conv(width, 3, stride, f"{name}_conv0", initializer=he_fan_out())(y)
    y = norm_relu(y, norm=norm, name=f"{name}_norm1")
    y = conv(width, 3, 1, f"{name}_conv1", initializer=he_fan_out())(y)
    return keras.layers.Add()([x, y])
