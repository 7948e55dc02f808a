"""AlexNet with BatchNorm, as the code of "Augment Your Batch" has it.

Source: Krizhevsky 2014, "One weird trick" (arXiv:1404.5997), for the widths; convNet.pytorch,
models/alexnet.py, for where BatchNorm stands and the initial weights.
"""

from typing import Any

import keras

from ba_dist.models.layers.blocks import Norm, conv, logits, norm_relu, torch_default
from ba_dist.models.layers.dropout import InstanceDropout

# (width, size of the kernel, whether a pool follows) of the convolutions behind the first one.
_CONVOLUTIONS = ((192, 5, True), (384, 3, False), (256, 3, False), (256, 3, True))
_HIDDEN = 4096


def alexnet(*, image_shape: tuple[int, int, int], classes: int, norm: Norm) -> Any:
    """Five convolutions, two linear layers of 4096 with dropout, and the last one.

    The first convolution is pooled, normalised and then cut by the ReLU; the other four are cut
    before they are normalised.

    Args:
        image_shape: (H, W, C), at least 63 pixels on a side.
        classes: how many logits.
        norm: makes a normalisation layer, called with its name.

    Returns:
        A Keras model: images [n, H, W, C] → logits [n, classes].
    """
    images = keras.Input(image_shape, name="images")
    x = conv(64, 11, 4, "conv0", initializer=torch_default(), padding=2)(images)
    x = norm_relu(keras.layers.MaxPooling2D(3, 2)(x), norm=norm, name="norm0")
    for i, (width, size, pools) in enumerate(_CONVOLUTIONS, start=1):
        x = conv(width, size, 1, f"conv{i}", initializer=torch_default())(x)
        if pools:
            x = keras.layers.MaxPooling2D(3, 2)(x)
        x = norm(name=f"norm{i}")(keras.layers.ReLU()(x))
    x = keras.layers.Flatten()(x)
    for i in range(2):
        name = f"hidden{i}"
        dense = keras.layers.Dense(
            _HIDDEN, use_bias=False, kernel_initializer=torch_default(), name=name
        )
        x = norm_relu(dense(x), norm=norm, name=f"{name}_norm")
        x = InstanceDropout(0.5, name, name=f"{name}_dropout")(x)
    return keras.Model(images, logits(x, classes, torch_default()), name="alexnet")
