"""Name → network: a registry that says who builds it, what it learns and how large it is.

A family of networks is a module of its own here; it registers nothing by itself, so that listing
the names imports no Keras. Tests and scripts may add their own: `NETWORKS["mine"] = Network(...)`.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ba_dist.errors import ConfigError
from ba_dist.models import own
from ba_dist.models.tags import tag

_HE = "He et al. 2015, arXiv:1512.03385"
_TORCHVISION = "torchvision's model table, v1.5 weights"


@dataclass(frozen=True)
class Network:
    """One entry of the registry.

    Args:
        build: called with the facts of the task by name (`image_shape`, `classes`) and with
            `norm`, which makes a normalisation layer; returns a Keras model.
        parameters: that are trained, as published for the dataset of the paper; None where no
            number was published.
        source: of the network, and of that number.
        task: what it learns (`ba_dist.tasks`).
        keeps_state: whether it keeps a state for each instance, as an LSTM does from step to step;
            `build` then also gets `instances`, how many this rank holds.
        smallest: side in pixels of the smallest images that its strides leave something of.
        drop_path: whether it has edges that `--drop-path` can zero.
        manifold_mixup: whether `build` takes this word, and marks layers for `--manifold-mixup`.
        normalised: whether ghost batches are normalised together, so that their size counts.
    """

    build: Callable[..., Any]
    parameters: float | None
    source: str
    task: str = "classification"
    keeps_state: bool = False
    smallest: int = 1
    drop_path: bool = False
    manifold_mixup: bool = False
    normalised: bool = True


def _made_by(module: str, function: str, *settings: Any) -> Callable[..., Any]:
    """A builder that imports its module, and Keras, when it is called."""

    def build(**facts: Any) -> Any:
        family = import_module(f"ba_dist.models.{module}")
        return getattr(family, function)(*settings, **facts)

    return build


_cifar = partial(_made_by, "resnet", "cifar_resnet")
_imagenet = partial(_made_by, "resnet", "imagenet_resnet")

# Millions of parameters in table 6, two digits.
_PUBLISHED = {20: 0.27e6, 32: 0.46e6, 44: 0.66e6, 56: 0.85e6, 110: 1.7e6, 1202: 19.4e6}

NETWORKS: dict[str, Network] = {
    f"resnet{depth}": Network(
        _cifar(depth), _PUBLISHED.get(depth), f"{_HE}, section 4.2", manifold_mixup=True
    )
    for depth in range(8, 1203, 6)
}
# 50 and 152 are 6n+2 as well: these names mean the networks for ImageNet.
NETWORKS |= {
    "resnet18": Network(_imagenet(18), 11_689_512, _TORCHVISION, manifold_mixup=True),
    "resnet34": Network(_imagenet(34), 21_797_672, _TORCHVISION, manifold_mixup=True),
    "resnet50": Network(_imagenet(50), 25_557_032, _TORCHVISION, manifold_mixup=True),
    "resnet101": Network(_imagenet(101), 44_549_160, _TORCHVISION, manifold_mixup=True),
    "resnet152": Network(_imagenet(152), 60_192_808, _TORCHVISION, manifold_mixup=True),
}

NETWORKS |= {
    "wrn28-10": Network(
        _made_by("wide_resnet", "wide_resnet", 28, 10),
        36.5e6,
        "Zagoruyko and Komodakis 2016, arXiv:1605.07146, table 4",
        manifold_mixup=True,
    ),
    "vgg16": Network(
        _made_by("vgg", "vgg16", (4096, 4096)),
        34.0e6,
        "convNet.pytorch, models/vgg.py; number for 100 classes from weiaicunzai/pytorch-cifar100",
        smallest=32,
    ),
    "vgg16-linear": Network(
        _made_by("vgg", "vgg16", ()),
        None,
        "Simonyan and Zisserman 2015, arXiv:1409.1556, column D, with one linear layer of 512",
        smallest=32,
    ),
    "densenet100-12": Network(
        _made_by("densenet", "densenet_bc", 100, 12),
        0.8e6,
        "Huang et al. 2017, arXiv:1608.06993, table 2, DenseNet-BC",
        smallest=4,
    ),
    "darts": Network(
        _made_by("cells", "cell_network", "darts", 36),
        3_349_342,
        "Liu et al. 2019, arXiv:1806.09055; number of its code, without the auxiliary head",
        smallest=32,
        drop_path=True,
    ),
    "amoebanet": Network(
        _made_by("cells", "cell_network", "amoebanet", 128),
        None,
        'Real et al. 2019, arXiv:1802.01548; width 128, table 4 of "Augment Your Batch"',
        smallest=32,
        drop_path=True,
    ),
    "darts-small": Network(
        _made_by("cells", "cell_network", "darts", 12, 6),
        None,
        "six cells of `darts`, for smoke runs, where building a step is most of the work",
        smallest=32,
        drop_path=True,
    ),
    "amoebanet-small": Network(
        _made_by("cells", "cell_network", "amoebanet", 12, 6),
        None,
        "six cells of `amoebanet`, for smoke runs",
        smallest=32,
        drop_path=True,
    ),
    "alexnet": Network(
        _made_by("alexnet", "alexnet"),
        61.1e6,
        "convNet.pytorch, models/alexnet.py; number of torchvision's",
        smallest=63,
    ),
    "mobilenet": Network(
        _made_by("mobilenet", "mobilenet"),
        4.2e6,
        "Howard et al. 2017, arXiv:1704.04861, table 4",
    ),
}

NETWORKS |= {
    f"transformer-{size}": Network(
        _made_by("transformer", "transformer", size),
        None,
        f"Vaswani et al. 2017, arXiv:1706.03762, {text}",
        task="translation",
    )
    for size, text in (
        ("base", "table 3: 65 million, with a vocabulary of about 37,000"),
        ("small", "3 + 3 layers of width 128, for a few cores"),
    )
}

NETWORKS |= {
    f"lstm{suffix}": Network(
        _made_by("lstm", "language_model", size),
        parameters,
        "Merity et al. 2018, arXiv:1708.02182, section 5; 24 million for the 10,000 words of PTB",
        task="language-model",
        keeps_state=True,
        normalised=False,
    )
    for suffix, size, parameters in (("", "awd", 24.2e6), ("-small", "small", None))
}

_FAMILY = "resnetN for any N = 6n+2 (resnet8, resnet44, …)"


def names() -> str:
    """The networks, for a person."""
    return f"{names_of(NETWORKS)}, and FILE.py:FUNCTION or MODULE:FUNCTION of your own"


def names_of(chosen: Collection[str]) -> str:
    """Some of the networks, for a person; the CIFAR residual ones as a family."""
    single = [name for name in chosen if not _of_family(name)]
    return ", ".join([*single, _FAMILY] if len(single) < len(chosen) else single)


def network(name: str) -> Network:
    """The entry of a network; one of somebody's own learns to classify.

    Raises:
        ConfigError: listing the networks when there is none of this name.
    """
    if own.is_own(name):
        return Network(partial(own.build, name), None, name, drop_path=True)  # it may have
    if name not in NETWORKS:
        raise ConfigError(f"--model {name!r} is unknown; choose from {names()}")
    return NETWORKS[name]


def check(name: str) -> None:
    """Looks whether there is a network of this name, without building it.

    Raises:
        ConfigError: listing the networks, or saying where a function was looked for.
    """
    network(name)
    if own.is_own(name):
        own.check(name)


def with_drop_path() -> list[str]:
    """The networks that `--drop-path` is for."""
    return [name for name, entry in NETWORKS.items() if entry.drop_path]


def with_manifold_mixup() -> list[str]:
    """The networks that `--manifold-mixup` is for."""
    return [name for name, entry in NETWORKS.items() if entry.manifold_mixup]


def build(
    name: str,
    norm: Callable[..., Any],
    *,
    instances: int = 1,
    home: Path | None = None,
    manifold_mixup: bool = False,
    **facts: Any,
) -> Any:
    """Builds a Keras model whose variables carry their tags.

    Args:
        name: of the network.
        norm: makes a normalisation layer, called with the arguments of Keras' own.
        instances: of this rank; counts only for a network that keeps a state for each.
        home: the folder that the run was started in, where a network of somebody's own is looked
            for before the current one.
        manifold_mixup: whether to mark layers for it, in a network that can.
        facts: of the task; for classification `image_shape` (H, W, C) and `classes`, which give
            images [n, H, W, C] → logits [n, classes].

    Raises:
        ConfigError: listing the networks when there is none of this name; saying what is wrong
            with one of somebody's own; naming both sizes when the images are too small for it.
    """
    entry = network(name)
    _check_size(name, entry, facts)
    more: dict[str, Any] = {"instances": instances} if entry.keeps_state else {}
    if own.is_own(name):
        more["home"] = home
    if manifold_mixup:
        more["manifold_mixup"] = True
    model = entry.build(norm=norm, **more, **facts)
    tag(model)
    return model


def _check_size(name: str, entry: Network, facts: dict[str, Any]) -> None:
    side = min(facts.get("image_shape", (entry.smallest,) * 2)[:2])
    if side < entry.smallest:
        raise ConfigError(
            f"--model {name} needs images of {entry.smallest} pixels on a side, these have {side};"
            f" --image-size {entry.smallest} where they are cropped, or another network"
        )


def _of_family(name: str) -> bool:
    return NETWORKS[name].source.startswith(_HE)
