"""The paper's ImageNet experiments (section 4.1 and 4.5, tables 2 to 5, figures 4 and 5).

    ba-dist data index imagenet --data-dir DIR        # TFRecord shards: once, where it is written
    launch/mpirun.sh -n 16 -- train resnet50-imagenet --data-dir DIR
    launch/mpirun.sh -n 2 -- train resnet50-imagenet --smoke      # a few steps, without data

DIR holds folders of JPEGs (train/CLASS/*.JPEG and val/CLASS/*.JPEG), TFRecord shards
(train-00000-of-01024 …), or what TensorFlow Datasets prepared (imagenet2012): whatever is found.

`ba-dist recipes NAME` says what the paper reports for each, its nodes and the hours it takes.
Regimes are those published with the authors' code. A laptop's version of ResNet-50 and
MobileNet, which trains on every class:
--train-samples 4000 --val-samples 1000 --image-size 64 --epochs 1.
"""

import dataclasses
from typing import Any

from ba_dist.config import Augment, Batch, Config, Data, Model, Optimizer, Run, override

_TENTHS = Optimizer(lr=((0, 0.1), (30, 0.01), (60, 0.001), (80, 0.0001)), weight_decay=1e-4)
RESNET50 = Config(
    recipe="resnet50-imagenet",
    batch=Batch(batch_size=256, multiplicity=4),
    data=Data(dataset="imagenet", image_size=224),
    augment=Augment(crop="random-resized", resize=256, flip=True),
    model=Model(model="resnet50"),
    optimizer=_TENTHS,
    run=Run(epochs=90),
)


def resnet50_imagenet() -> Config:
    """ResNet-50 on ImageNet, B = 256, M = 4, 90 epochs (table 2)."""
    return RESNET50


def mobilenet_imagenet() -> Config:
    """MobileNet v1 on ImageNet, B = 256, M = 4, 90 epochs (table 2)."""
    return dataclasses.replace(
        RESNET50,
        recipe="mobilenet-imagenet",
        augment=Augment(crop="resize-random", resize=256, flip=True),
        model=Model(model="mobilenet"),
    )


def alexnet_imagenet() -> Config:
    """AlexNet with BatchNorm on ImageNet, B = 256, M = 8, 30 epochs (table 2)."""
    return dataclasses.replace(
        RESNET50,
        recipe="alexnet-imagenet",
        batch=Batch(batch_size=256, multiplicity=8),
        augment=Augment(crop="resize-random", resize=256, flip=True),
        model=Model(model="alexnet"),
        optimizer=Optimizer(
            lr=((0, 0.01), (10, 0.005), (15, 0.001), (20, 0.0005), (25, 0.0001)),
            weight_decay=5e-4,
            weight_decay_epochs=15,
        ),
        run=Run(epochs=30),
    )


def resnet50_imagenet_mixup() -> Config:
    """ResNet-50 on ImageNet with mixup, B = 256, M = 4, 90 epochs (table 3)."""
    return dataclasses.replace(override(RESNET50, {"mixup": 0.2}), recipe="resnet50-imagenet-mixup")


def resnet50_imagenet_m10() -> Config:
    """ResNet-50 on ImageNet, B = 256, M = 10, 90 epochs (table 4)."""
    return dataclasses.replace(
        override(RESNET50, {"multiplicity": 10}), recipe="resnet50-imagenet-m10"
    )


# --- figures 4 and 5: other regimes ---------------------------------------------------------------


def resnet50_imagenet_40epochs() -> Config:
    """ResNet-50 on ImageNet, B = 256, M = 4, 40 epochs (figure 4)."""
    points = ((0, 0.1), (30, 0.01), (35, 0.001))
    return _other_regime("resnet50-imagenet-40epochs", lr=points, epochs=40)


def resnet50_imagenet_23epochs() -> Config:
    """ResNet-50 on ImageNet, B = 256, M = 4, 23 epochs (figure 4)."""
    points = ((0, 0.1), (15, 0.01), (20, 0.001), (22, 0.0001))
    return _other_regime("resnet50-imagenet-23epochs", lr=points, epochs=23)


def resnet50_imagenet_large() -> Config:
    """ResNet-50 on ImageNet, B = 8192, M = 4, 90 epochs (figure 5), for 512 ranks of 64 images.

    The regime of Goyal et al. 2017, "Accurate, Large Minibatch SGD": rates of B = 256 times 32,
    after five epochs of warm-up from the rate of B = 256.
    """
    return _other_regime(
        "resnet50-imagenet-large",
        batch_size=8192,
        lr_batch_size=256,
        lr_scale="linear",
        warmup_epochs=5.0,
        warmup_from=0.1,
    )


def resnet50_imagenet_lars() -> Config:
    """ResNet-50 on ImageNet with LARS, B = 8192, M = 4, 90 epochs (named in section 4.5).

    The paper has no figures for it. Assumed: the regime of TensorFlow's reference ResNet-50 for
    TPUs at this batch size, five epochs of warm-up to a rate of 10, then a parabola to 0.
    """
    return _other_regime(
        "resnet50-imagenet-lars",
        batch_size=8192,
        optimizer="lars",
        trust=0.001,
        lr=((0, 0.0, "linear"), (5, 10.0, "polynomial"), (90, 0.0)),
    )


def _other_regime(name: str, **changes: Any) -> Config:
    return dataclasses.replace(override(RESNET50, changes), recipe=name)
