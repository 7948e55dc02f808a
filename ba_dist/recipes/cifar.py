"""The paper's CIFAR experiments (section 4.1, tables 2 and 3).

    ba-dist data prepare cifar10                                  # on a machine with a network
    launch/mpirun.sh -n 8 -- train resnet44-cifar10               # B = 64, M = 40
    launch/mpirun.sh -n 8 -- train resnet44-cifar10 --multiplicity 1   # its baseline

Table 2 reports 93.70 % for the baseline with as many steps and 95.43 % for M = 40 on CIFAR-10;
72.97 % and 74.13 % on CIFAR-100. The regime is the one published with the authors' code.
"""

import dataclasses

from ba_dist.config import Augment, Batch, Config, Data, Model, Optimizer, Run

RESNET44 = Config(
    recipe="resnet44-cifar10",
    batch=Batch(batch_size=64, multiplicity=40),
    data=Data(dataset="cifar10"),
    augment=Augment(pad_crop=4, flip=True, cutout=16),
    model=Model(model="resnet44"),
    optimizer=Optimizer(lr=((0, 0.1), (81, 0.01), (122, 0.001), (164, 0.0001)), weight_decay=1e-4),
    run=Run(epochs=100),
)


def resnet44_cifar10() -> Config:
    """ResNet-44 on CIFAR-10 with cutout, B = 64, M = 40, 100 epochs (table 2)."""
    return RESNET44


def resnet44_cifar100() -> Config:
    """ResNet-44 on CIFAR-100 with cutout, B = 64, M = 40, 100 epochs (table 2)."""
    return dataclasses.replace(RESNET44, recipe="resnet44-cifar100", data=Data(dataset="cifar100"))
