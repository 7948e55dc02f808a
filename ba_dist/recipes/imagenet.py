"""The paper's ImageNet experiments (section 4.1 and 4.5, tables 2 and 5, figures 4 and 5).

    ba-dist data index imagenet --data-dir DIR        # TFRecord shards: once, where it is written
    launch/mpirun.sh -n 16 -- train resnet50-imagenet --data-dir DIR
    launch/mpirun.sh -n 16 -- train resnet50-imagenet --data-dir DIR --multiplicity 1  # baseline

DIR holds folders of JPEGs (train/CLASS/*.JPEG and val/CLASS/*.JPEG), TFRecord shards
(train-00000-of-01024 …), or what TensorFlow Datasets prepared (imagenet2012): whatever is found.

Table 2 reports 76.30 % for the baseline with as many steps, 76.86 % for M = 4. The regime is the
one published with the authors' code. A laptop's version, which trains on every class:
--train-samples 4000 --val-samples 1000 --image-size 64 --epochs 1.
"""

from ba_dist.config import Augment, Batch, Config, Data, Model, Optimizer, Run


def resnet50_imagenet() -> Config:
    """ResNet-50 on ImageNet, B = 256, M = 4, 90 epochs (table 2)."""
    return Config(
        recipe="resnet50-imagenet",
        batch=Batch(batch_size=256, multiplicity=4),
        data=Data(dataset="imagenet", image_size=224),
        augment=Augment(crop="random-resized", resize=256, flip=True),
        model=Model(model="resnet50"),
        optimizer=Optimizer(
            lr=((0, 0.1), (30, 0.01), (60, 0.001), (80, 0.0001)), weight_decay=1e-4
        ),
        run=Run(epochs=90),
    )
