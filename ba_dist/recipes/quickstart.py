"""A first run: real images, real batch augmentation, one or two minutes on two cores.

    ba-dist data prepare fashion_mnist                            # once; `make run` does both
    launch/mpirun.sh -n 2 -- train quickstart --multiplicity 2

Where the data cannot be had, it trains on scikit-learn's digits and says so.
"""

import dataclasses

from ba_dist.config import Augment, Batch, Config, Data, Model, Optimizer, Run


def quickstart() -> Config:
    """ResNet-8 on 10,000 images of Fashion-MNIST with cutout, M = 2: a first run."""
    return Config(
        recipe="quickstart",
        batch=Batch(batch_size=64, multiplicity=2),
        data=Data(dataset="fashion_mnist", train_samples=10_000),
        augment=Augment(pad_crop=2, flip=True, cutout=8),
        model=Model(model="resnet8"),
        optimizer=Optimizer(
            lr=((0, 0.2), (5, 0.0)),
            lr_shape="linear",
            warmup_epochs=0.5,
            warmup_from=0.02,
            weight_decay=1e-4,
        ),
        run=Run(epochs=5),
    )


def on_digits(config: Config) -> Config:
    """The same on the digits in scikit-learn's wheel: 1,497 images of 8x8 pixels, more epochs."""
    longer = tuple((4 * epoch, *rest) for epoch, *rest in config.optimizer.lr)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, dataset="digits", train_samples=None),
        augment=Augment(pad_crop=1, flip=False, cutout=2),
        optimizer=dataclasses.replace(config.optimizer, lr=longer),
        run=dataclasses.replace(config.run, epochs=4 * config.run.epochs),
    )
