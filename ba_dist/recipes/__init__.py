"""Name → the configuration of an experiment; one readable file per family."""

from collections.abc import Callable

from ba_dist.config import Config
from ba_dist.errors import ConfigError
from ba_dist.recipes import cifar, imagenet, quickstart

RECIPES: dict[str, Callable[[], Config]] = {
    "quickstart": quickstart.quickstart,
    "resnet44-cifar10": cifar.resnet44_cifar10,
    "resnet44-cifar100": cifar.resnet44_cifar100,
    "resnet50-imagenet": imagenet.resnet50_imagenet,
}


def recipe(name: str) -> Config:
    """The configuration of a recipe.

    Raises:
        ConfigError: listing the recipes when there is none of this name.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}; choose from {', '.join(RECIPES)}")
    return RECIPES[name]()


def summary(name: str) -> str:
    """The first line of what its author says of a recipe."""
    return (RECIPES[name].__doc__ or "").strip().splitlines()[0]
