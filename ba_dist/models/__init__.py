"""Name → network."""

import re
from collections.abc import Callable
from typing import Any

from ba_dist.errors import ConfigError

NAMES = "resnet50, resnet101, resnet152, and resnetN for any N = 6n+2 (resnet8, resnet44, …)"


def build(
    name: str, image_shape: tuple[int, int, int], classes: int, norm: Callable[..., Any]
) -> Any:
    """Builds a Keras model that maps images [n, H, W, C] to logits [n, classes].

    Args:
        name: of the network.
        image_shape: (H, W, C).
        classes: how many.
        norm: makes a normalisation layer, called with the arguments of Keras' own.

    Raises:
        ConfigError: listing the networks when there is none of this name.
    """
    if match := re.fullmatch(r"resnet(\d+)", name):
        depth = int(match[1])
        from ba_dist.models import resnet

        # 152 = 6·25 + 2 as well: the name means the ImageNet network.
        if depth in resnet.IMAGENET_BLOCKS:
            return resnet.imagenet_resnet(depth, image_shape, classes, norm)
        if depth >= 8 and depth % 6 == 2:
            return resnet.cifar_resnet(depth, image_shape, classes, norm)
    raise ConfigError(f"--model {name!r} is unknown; choose from {NAMES}")
