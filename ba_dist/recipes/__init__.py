"""Name → the configuration of an experiment; one readable file per family."""

from collections.abc import Callable

from ba_dist.config import Config, override
from ba_dist.errors import ConfigError
from ba_dist.recipes import cifar, imagenet, language, own, quickstart, translation
from ba_dist.recipes.baselines import baseline_of
from ba_dist.recipes.smoke import smoke_of

__all__ = ["RECIPES", "baseline_of", "recipe", "smoke_of", "summary"]

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
    "transformer-wmt16": translation.transformer_wmt16,
    "transformer-gettext": translation.transformer_gettext,
    "lstm-ptb": language.lstm_ptb,
    "resnet44-cifar10-mixup": cifar.resnet44_cifar10_mixup,
    "wrn28-10-cifar10-mixup": cifar.wrn28_10_cifar10_mixup,
    "wrn28-10-cifar100-mixup": cifar.wrn28_10_cifar100_mixup,
    "resnet50-imagenet-mixup": imagenet.resnet50_imagenet_mixup,
    "resnet44-cifar10-m10": cifar.resnet44_cifar10_m10,
    "darts-cifar10-m10": cifar.darts_cifar10_m10,
    "amoebanet-cifar10-m10": cifar.amoebanet_cifar10_m10,
    "resnet50-imagenet-m10": imagenet.resnet50_imagenet_m10,
    "resnet44-cifar10-23epochs": cifar.resnet44_cifar10_23epochs,
    "resnet50-imagenet-40epochs": imagenet.resnet50_imagenet_40epochs,
    "resnet50-imagenet-23epochs": imagenet.resnet50_imagenet_23epochs,
    "resnet50-imagenet-large": imagenet.resnet50_imagenet_large,
    "resnet50-imagenet-lars": imagenet.resnet50_imagenet_lars,
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
        return _with_its_batch(own.config_of(name))
    if name not in RECIPES:
        raise ConfigError(
            f"there is no recipe {name!r}; choose from {', '.join(RECIPES)}, or name a function of"
            " your own as FILE.py:FUNCTION"
        )
    return _with_its_batch(RECIPES[name]())


def _with_its_batch(config: Config) -> Config:
    """The recipe, which knows for which batch size its regime was written."""
    its_own = config.optimizer.lr_batch_size or config.batch.batch_size
    return override(config, {"lr_batch_size": its_own})


def summary(name: str) -> str:
    """The first line of what its author says of a recipe."""
    function = own.function_of(name) if own.is_own(name) else RECIPES[name]
    return ((function.__doc__ or "").strip().splitlines() or [name])[0]
