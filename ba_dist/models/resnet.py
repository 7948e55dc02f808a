"""The residual networks of He et al. 2015 (arXiv:1512.03385).

Shape suffixes: n instances, H height, W width, C channels.
"""

from typing import Any

import keras

from ba_dist.models.layers.blocks import Norm, conv, logits, norm_relu
from ba_dist.models.layers.manifold_mixup import marked


def cifar_resnet(
    depth: int,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    norm: Norm,
    width: int = 16,
    manifold_mixup: bool = False,
) -> Any:
    """The CIFAR family of section 4.2: depth 6n+2, widths 16, 32, 64, shortcuts of option A.

    Args:
        depth: 6n+2 for n ≥ 1.
        image_shape: (H, W, C).
        classes: how many logits.
        norm: makes a normalisation layer, called with its name.
        width: channels of the first stage.
        manifold_mixup: whether it has layers at which activations may be mixed.

    Returns:
        A Keras model: images [n, H, W, C] → logits [n, classes].
    """
    blocks = (depth - 2) // 6
    images = keras.Input(image_shape, name="images")
    x = conv(width, 3, 1, "stem")(marked(images, 0, manifold_mixup))
    x = norm_relu(x, norm=norm, name="stem_norm")
    for stage in range(3):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"stage{stage}_block{block}"
            x = _basic_block(x, width * 2**stage, stride, norm=norm, name=name)
        x = marked(x, stage + 1, manifold_mixup and stage < 2)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, logits(x, classes), name=f"resnet{depth}")


def _basic_block(x: Any, width: int, stride: int, *, norm: Norm, name: str) -> Any:
    y = conv(width, 3, stride, f"{name}_conv0")(x)
    y = norm_relu(y, norm=norm, name=f"{name}_norm0")
    y = norm(name=f"{name}_norm1")(conv(width, 3, 1, f"{name}_conv1")(y))
    if stride != 1:
        x = _Shortcut(width, stride, name=f"{name}_shortcut")(x)
    return keras.layers.ReLU()(keras.layers.Add()([x, y]))


# Blocks in each of the four stages; from 50 layers on they are bottlenecks.
IMAGENET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def imagenet_resnet(
    depth: int,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    norm: Norm,
    manifold_mixup: bool = False,
) -> Any:
    """The ImageNet family: basic blocks of two 3x3 convolutions up to 34 layers, then bottlenecks.

    A basic block has its stride in the first convolution, as in the paper; a bottleneck in the 3x3
    one (torchvision's v1.5). Shortcuts are of option B, a projection where the shape changes.
    Each block begins as its shortcut, and the logits begin small (Goyal et al. 2017, section 5.1):
    otherwise the first steps at the rate 0.1 go up.

    Args:
        depth: 18, 34, 50, 101 or 152.
        image_shape: (H, W, C).
        classes: how many logits.
        norm: makes a normalisation layer, called with the arguments of Keras' own.
        manifold_mixup: whether it has layers at which activations may be mixed.

    Returns:
        A Keras model: images [n, H, W, C] → logits [n, classes].
    """
    block_of = _bottleneck if depth >= 50 else _projected_block
    images = keras.Input(image_shape, name="images")
    x = conv(64, 7, 2, "stem")(marked(images, 0, manifold_mixup))
    x = norm_relu(x, norm=norm, name="stem_norm")
    # The zeros around it change no maximum: behind the ReLU nothing is below them.
    x = keras.layers.MaxPooling2D(3, 2)(keras.layers.ZeroPadding2D(1)(x))
    for stage, blocks in enumerate(IMAGENET_BLOCKS[depth]):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"stage{stage}_block{block}"
            x = block_of(x, 64 * 2**stage, stride, norm=norm, name=name)
        x = marked(x, stage + 1, manifold_mixup and stage < 2)
    x = keras.layers.GlobalAveragePooling2D()(x)
    small = keras.initializers.RandomNormal(stddev=0.01)
    return keras.Model(images, logits(x, classes, small), name=f"resnet{depth}")


def _projected_block(x: Any, width: int, stride: int, *, norm: Norm, name: str) -> Any:
    y = conv(width, 3, stride, f"{name}_conv0")(x)
    y = norm_relu(y, norm=norm, name=f"{name}_norm0")
    y = conv(width, 3, 1, f"{name}_conv1")(y)
    y = norm(name=f"{name}_norm1", gamma_initializer="zeros")(y)
    return _add_projected(x, y, stride, norm=norm, name=name)


def _bottleneck(x: Any, width: int, stride: int, *, norm: Norm, name: str) -> Any:
    y = conv(width, 1, 1, f"{name}_conv0")(x)
    y = norm_relu(y, norm=norm, name=f"{name}_norm0")
    y = conv(width, 3, stride, f"{name}_conv1")(y)
    y = norm_relu(y, norm=norm, name=f"{name}_norm1")
    y = conv(4 * width, 1, 1, f"{name}_conv2")(y)
    y = norm(name=f"{name}_norm2", gamma_initializer="zeros")(y)
    return _add_projected(x, y, stride, norm=norm, name=name)


def _add_projected(x: Any, y: Any, stride: int, *, norm: Norm, name: str) -> Any:
    """ReLU(x + y), where x goes through a 1x1 convolution if the shape changes (option B)."""
    channels = y.shape[-1]
    if stride != 1 or x.shape[-1] != channels:
        x = norm(name=f"{name}_shortcut_norm")(conv(channels, 1, stride, f"{name}_shortcut")(x))
    return keras.layers.ReLU()(keras.layers.Add()([x, y]))


@keras.saving.register_keras_serializable("ba_dist")
class _Shortcut(keras.layers.Layer):
    """Option A: every stride-th pixel, and zeros for the channels that are new."""

    def __init__(self, width: int, stride: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = width
        self.stride = stride

    def call(self, x_nHWC: Any) -> Any:
        # Windows of one pixel: the same as x[:, ::s, ::s], whose gradient TensorFlow is slow at.
        x_nHWC = keras.ops.average_pool(
            x_nHWC, 1, self.stride, "valid", data_format="channels_last"
        )
        new = self.width - x_nHWC.shape[-1]
        return keras.ops.pad(x_nHWC, [[0, 0], [0, 0], [0, 0], [new // 2, new - new // 2]])

    def compute_output_shape(self, input_shape: Any) -> Any:
        count, height, width, _ = input_shape
        return (count, -(-height // self.stride), -(-width // self.stride), self.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "stride": self.stride}
