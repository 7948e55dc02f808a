"""VGG-16 for images of 32 pixels, with BatchNorm.

Source: Simonyan and Zisserman 2015 (arXiv:1409.1556), table 1, column D; with the layers behind the
convolutions and the initial weights of the code of "Augment Your Batch" (convNet.pytorch,
models/vgg.py). Convolutions have no bias: BatchNorm would take it away.
"""

from typing import Any

import keras

from ba_dist.models.layers.blocks import Norm, conv, logits, norm_relu, torch_default
from ba_dist.models.layers.dropout import InstanceDropout

# (convolutions, their width) of each stage; a maximum over 2x2 pixels ends it.
_STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def vgg16(
    hidden: tuple[int, ...], *, image_shape: tuple[int, int, int], classes: int, norm: Norm
) -> Any:
    """13 convolutions of 3x3, then linear layers with dropout.

    Args:
        hidden: sizes of the linear layers before the last one, each with a ReLU and dropout of one
            half: (4096, 4096) in the authors' code, () for one linear layer of 512.
        image_shape: (H, W, C), at least 32 pixels on a side.
        classes: how many logits.
        norm: makes a normalisation layer, called with its name.

    Returns:
        A Keras model: images [n, H, W, C] → logits [n, classes].
    """
    images = x = keras.Input(image_shape, name="images")
    for stage, (convolutions, width) in enumerate(_STAGES):
        for i in range(convolutions):
            name = f"stage{stage}_conv{i}"
            x = conv(width, 3, 1, name, initializer=torch_default())(x)
            x = norm_relu(x, norm=norm, name=f"{name}_norm")
        x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    for i, size in enumerate(hidden):
        name = f"hidden{i}"
        x = keras.layers.Dense(
            size, activation="relu", kernel_initializer=torch_default(), name=name
        )(x)
        x = InstanceDropout(0.5, name, name=f"{name}_dropout")(x)
    return keras.Model(images, logits(x, classes, torch_default()), name="vgg16")
