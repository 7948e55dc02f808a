"""Name → network."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from ba_dist.config import Config
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


def of_config(
    config: Config, image_shape: tuple[int, int, int], classes: int, ghost_batch: int
) -> Any:
    """The network of a configuration, with ghost BatchNorm."""
    from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization

    norm = partial(
        GhostBatchNormalization, ghost_batch_size=ghost_batch, momentum=config.model.bn_momentum
    )
    return build(config.model.model, image_shape, classes, norm)
