"""Name → the configuration of an experiment; one readable file per family."""

from collections.abc import Callable

from ba_dist.config import Config
from ba_dist.errors import ConfigError
from ba_dist.recipes import cifar, imagenet, language, own, quickstart

RECIPES: dict[str, Callable[[], Config]] = {
    "quickstart": quickstart.quickstart,
    "resnet44-cifar10": cifar.resnet44_cifar10,
    "vgg16-cifar10": cifar.vgg16_cifar10,
    "wrn28-10-cifar10": cifar.wrn28_10_cifar10,
    "darts-cifar10": cifar.darts_cifar10,
    "amoebanet-cifar10": cifar.amoebanet_cifar10,
    "resnet44-cifar100": cifar.resnet44_cifar100,
    "vgg16-cifar100": cifar.vgg16_cifar100,
    "wrn28-10-cifar100": cifar.wrn28_10_cifar100,
    "densenet100-12-cifar100": cifar.densenet100_12_cifar100,
    "alexnet-imagenet": imagenet.alexnet_imagenet,
    "mobilenet-imagenet": imagenet.mobilenet_imagenet,
    "resnet50-imagenet": imagenet.resnet50_imagenet,
    "lstm-ptb": language.lstm_ptb,
    "resnet44-cifar10-mixup": cifar.resnet44_cifar10_mixup,
    "wrn28-10-cifar10-mixup": cifar.wrn28_10_cifar10_mixup,
    "wrn28-10-cifar100-mixup": cifar.wrn28_10_cifar100_mixup,
    "resnet50-imagenet-mixup": imagenet.resnet50_imagenet_mixup,
    "resnet44-cifar10-m10": cifar.resnet44_cifar10_m10,
    "darts-cifar10-m10": cifar.darts_cifar10_m10,
    "amoebanet-cifar10-m10": cifar.amoebanet_cifar10_m10,
    "resnet50-imagenet-m10": imagenet.resnet50_imagenet_m10,
    "lstm-bible": language.lstm_bible,
}


def recipe(name: str) -> Config:
    """The configuration of a recipe.

    Args:
        name: one of RECIPES, or `FILE.py:FUNCTION` of somebody's own.

    Raises:
        ConfigError: listing the recipes when there is none of this name; with the line where
            somebody's own fails.
    """
    if own.is_own(name):
        return own.config_of(name)
    if name not in RECIPES:
        raise ConfigError(
            f"there is no recipe {name!r}; choose from {', '.join(RECIPES)}, or name a function of"
            " your own as FILE.py:FUNCTION"
        )
    return RECIPES[name]()


def summary(name: str) -> str:
    """The first line of what its author says of a recipe."""
    function = own.function_of(name) if own.is_own(name) else RECIPES[name]
    return ((function.__doc__ or "").strip().splitlines() or [name])[0]
