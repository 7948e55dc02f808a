"""A network in layers of Keras alone, from pixels to logits: it loads where ba_dist is not."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from ba_dist.errors import UserError
from ba_dist.models.layers.dropout import InstanceDropout
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
from ba_dist.models.layers.manifold_mixup import ManifoldMixup
from ba_dist.models.resnet import _Shortcut
from ba_dist.models.tags import layers


def portable(model: Any, image_shape: Any, mean: Sequence[float], std: Sequence[float]) -> Any:
    """The network as it answers in evaluation, with the standardisation of its images inside.

    In inference a ghost BatchNorm is a BatchNorm, and dropout nothing.

    Args:
        model: Keras model: standardised images [n, H, W, C] → logits [n, classes].
        image_shape: (H, W, C).
        mean: of the pixels in 0 … 1, one for each channel.
        std: standard deviation of the same.

    Returns:
        A Keras model: pixels 0 … 255 [n, H, W, C], of any type → logits [n, classes].

    Raises:
        UserError: when the network is not made of layers that can be copied one by one.
    """
    if not _is_graph(model):
        raise UserError(_refusal(model))
    copies: list[tuple[Any, Any]] = []

    def copy(layer: Any) -> Any:
        copies.append((layer, _plain(layer)))
        return copies[-1][1]

    plain = keras.models.clone_model(model, clone_function=copy)
    for layer, made in copies:
        _take_weights(layer, made)
    pixels = keras.Input(image_shape, name="pixels")
    # As a Normalization, not a Rescaling: it rounds as training did.
    variance = np.square(255 * np.asarray(std)).tolist()
    standardise = keras.layers.Normalization(
        mean=(255 * np.asarray(mean)).tolist(), variance=variance, name="standardise"
    )
    return keras.Model(pixels, plain(standardise(pixels)), name=f"{model.name}_from_pixels")


def _is_graph(model: Any) -> bool:
    """Whether it is made of inputs and outputs; Keras has no public name for the class of those."""
    return isinstance(model, keras.Sequential) or hasattr(model, "operations")


def _refusal(layer: Any) -> str:
    return (
        f"{layer.name} is a class of its own ({type(layer).__name__}); only a network made by"
        " keras.Model(inputs, outputs) or keras.Sequential is exported as a whole. Its weights are:"
        " --output X.npz. To export it whole, give --model a function that calls its layers on"
        " keras.Input(image_shape) and returns keras.Model(inputs, outputs)"
    )


def _take_weights(layer: Any, made: Any) -> None:
    """Gives a copied layer the weights of its original.

    In order where the class is the same: layers inside of it may have got other names.
    """
    if type(made) is type(layer):
        made.set_weights(layer.get_weights())
        return
    values = {variable.name: variable for variable in layer.weights}
    for variable in made.weights:
        variable.assign(values[variable.name].value)


def own_layers(model: Any) -> list[str]:
    """Names of the layers of a network whose code is needed to load it."""
    return sorted(
        {type(layer).__name__ for layer in layers(model) if not _is_keras(type(layer).__module__)}
    )


def _is_keras(module: str) -> bool:
    return module.split(".")[0] == "keras"


def _plain(layer: Any) -> Any:
    """The layer of Keras that does the same in inference."""
    common = {"name": layer.name, "dtype": layer.dtype_policy}
    if isinstance(layer, GhostBatchNormalization):
        return keras.layers.BatchNormalization(
            momentum=layer.momentum, epsilon=layer.epsilon, **common
        )
    if isinstance(layer, InstanceDropout):
        return keras.layers.Dropout(layer.rate, **common)
    if isinstance(layer, ManifoldMixup):
        return keras.layers.Identity(**common)
    if isinstance(layer, _Shortcut):
        return _shortcut(layer)
    if isinstance(layer, keras.Model) and not _is_graph(layer):
        raise UserError(_refusal(layer))
    try:
        return layer.__class__.from_config(layer.get_config())
    except Exception as error:  # of somebody's own code, or for lack of it
        found = f"{error}".strip().splitlines()
        raise UserError(
            f"the layer {layer.name} ({type(layer).__name__}) cannot be copied:"
            f" {type(error).__name__}: {found[0] if found else ''}\nA layer of your own needs"
            " get_config() and from_config() for that. The weights can be exported all the same:"
            " --output X.npz"
        ) from None


def _shortcut(layer: Any) -> Any:
    """Every stride-th pixel by a pool of one pixel; new channels by padding an axis beside them."""
    x = images = keras.Input(layer.input.shape[1:], dtype=layer.compute_dtype)
    height, width, channels = layer.output.shape[1:]
    before = layer.width - layer.input.shape[-1]
    x = keras.layers.MaxPooling2D(1, layer.stride)(x)
    x = keras.layers.Reshape((height, width, channels - before, 1))(x)
    x = keras.layers.ZeroPadding3D((0, 0, (before // 2, before - before // 2)))(x)
    return keras.Model(images, keras.layers.Reshape((height, width, channels))(x), name=layer.name)
