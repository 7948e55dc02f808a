"""What the convolutional networks are made of, with the initial weights of their sources.

Convolutions and pools that stride are padded on both sides, as in the papers' code and torchvision:
they are centred on the pixels 0, 2, 4, …, which shortcuts take as well. TensorFlow's "same" pads an
even side only behind it, and would centre them on 1, 3, 5, … instead.
"""

from collections.abc import Callable
from typing import Any

import keras

Norm = Callable[..., Any]  # makes a normalisation layer, called with the arguments of Keras' own
Sides = int | tuple[int, int]  # of both sides, or of (height, width)


def conv(
    width: int,
    size: Sides,
    stride: Sides,
    name: str,
    *,
    initializer: Any = "he_normal",
    padding: int | None = None,
) -> Callable[[Any], Any]:
    """A convolution without bias, padded on both sides.

    Args:
        width: channels that it makes.
        size: of the kernel.
        stride: between two windows.
        name: of the layer.
        initializer: of the kernel, one made for this layer: Keras draws the same numbers again
            from one that is shared.
        padding: zeros on each side; default (size - 1) / 2.

    Returns:
        x [n, H, W, C] → [n, H / stride, W / stride, width].
    """
    layer = keras.layers.Conv2D(
        width,
        size,
        stride,
        "same" if max(_pair(stride)) == 1 and padding is None else "valid",
        use_bias=False,
        kernel_initializer=initializer,
        name=name,
    )
    return _padded(layer, size, padding)


def depthwise(
    size: int, stride: int, name: str, *, initializer: Any, dilation: int = 1
) -> Callable[[Any], Any]:
    """A convolution of each channel by itself, without bias, padded on both sides.

    Args:
        size: of the kernel.
        stride: between two windows.
        name: of the layer.
        initializer: of the kernel, one made for this layer.
        dilation: pixels from one element of the kernel to the next.
    """
    layer = keras.layers.DepthwiseConv2D(
        size,
        stride,
        "valid" if stride > 1 else "same",
        use_bias=False,
        depthwise_initializer=initializer,
        dilation_rate=dilation,
        name=name,
    )
    return _padded(layer, size, None)


def norm_relu(x: Any, *, norm: Norm, name: str) -> Any:
    """Normalises, then leaves nothing below zero."""
    return keras.layers.ReLU()(norm(name=name)(x))


def logits(x: Any, classes: int, initializer: Any = "glorot_uniform", name: str = "logits") -> Any:
    """The last layer, in float32 whatever the precision: the loss is computed exactly enough."""
    precision = "float64" if keras.config.floatx() == "float64" else "float32"
    return keras.layers.Dense(classes, kernel_initializer=initializer, name=name, dtype=precision)(
        x
    )


def he_fan_out() -> Any:
    """Normal, of variance 2 / (size² · channels that are made): `MSRinit` of the Torch networks.

    Source: He et al. 2015, "Delving Deep into Rectifiers", equation 14.
    """
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def torch_default() -> Any:
    """Uniform between ±1 / sqrt(inputs of an output), as PyTorch's layers begin by themselves.

    Source: PyTorch's documentation of Conv2d and Linear.
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def torch_default_depthwise(size: int) -> Any:
    """The same for `depthwise`: an output has size² inputs, but Keras counts all channels."""
    return keras.initializers.RandomUniform(-1 / size, 1 / size)


def _padded(layer: Any, size: Sides, padding: int | None) -> Callable[[Any], Any]:
    """The layer behind zeros on both sides, if it does not add them itself."""
    margins = tuple(side // 2 if padding is None else padding for side in _pair(size))
    if layer.padding == "same" or max(margins) == 0:
        found: Callable[[Any], Any] = layer
        return found
    pad = keras.layers.ZeroPadding2D(margins, name=f"{layer.name}_pad")
    return lambda x: layer(pad(x))


def _pair(sides: Sides) -> tuple[int, int]:
    return sides if isinstance(sides, tuple) else (sides, sides)
