"""What the paper reports, once: `ba-dist recipes` and the tests of docs/recipes.md read it here.

Source: "Augment Your Batch", CVPR 2020, tables 2 to 4 and figures 2, 4 and 5. Top-1 accuracy in
percent, but for the rows that say another measure.
"""

from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Published:
    """A row of a table, or the numbers that go with a figure.

    Args:
        number: of the table or figure.
        recipe: that redoes it.
        network: in words.
        dataset: in words.
        multiplicity: M of the row.
        baseline: M = 1, as many steps, or as many as `baseline_epochs` says; None where the paper
            has none.
        augmented: batch augmentation.
        fixed_samples: M = 1, as many instances in as many steps; table 2 alone.
        measure: what the numbers are.
        tta: both with ten augmented samples in evaluation; table 4 alone.
        kind: table or figure.
        baseline_epochs: of the baseline, where it ran for others than the recipe.
    """

    number: int
    recipe: str
    network: str
    dataset: str
    multiplicity: int
    baseline: float | None
    augmented: float
    fixed_samples: float | None = None
    measure: str = "top-1 %"
    tta: tuple[float, float] | None = None
    kind: str = "table"
    baseline_epochs: int | None = None

    @property
    def where(self) -> str:
        """`table 2`."""
        return f"{self.kind} {self.number}"


_C10, _C100 = "CIFAR-10", "CIFAR-100"
_DENSE, _AMOEBA, _RES50 = "DenseNet-BC-100-12", "AmoebaNet-A", "ResNet-50"
_BASE = "Transformer (base)"
_of_figure = partial(Published, kind="figure")
PUBLISHED = (
    Published(2, "resnet44-cifar10", "ResNet-44", _C10, 40, 93.70, 95.43, 93.80),
    Published(2, "vgg16-cifar10", "VGG-16", _C10, 32, 93.82, 95.32, 94.49),
    Published(2, "wrn28-10-cifar10", "WRN-28-10", _C10, 6, 96.60, 97.15, 96.60),
    Published(2, "darts-cifar10", "DARTS", _C10, 8, 97.65, 97.85, 97.63),
    Published(2, "amoebanet-cifar10", _AMOEBA, _C10, 8, 98.16, 98.24, 98.10),
    Published(2, "resnet44-cifar100", "ResNet-44", _C100, 40, 72.97, 74.13, 70.30),
    Published(2, "vgg16-cifar100", "VGG-16", _C100, 32, 73.03, 75.50, 67.20),
    Published(2, "wrn28-10-cifar100", "WRN-28-10", _C100, 10, 79.85, 83.45, 80.12),
    Published(2, "densenet100-12-cifar100", _DENSE, _C100, 4, 77.73, 78.80, 75.35),
    Published(2, "alexnet-imagenet", "AlexNet", "ImageNet", 8, 58.25, 62.31, 57.60),
    Published(2, "mobilenet-imagenet", "MobileNet v1", "ImageNet", 4, 70.60, 71.40, 69.50),
    Published(2, "resnet50-imagenet", _RES50, "ImageNet", 4, 76.30, 76.86, 75.70),
    Published(2, "lstm-ptb", "AWD-LSTM", "PTB", 10, 58.8, 58.6, 58.8, "perplexity"),
    Published(2, "transformer-wmt16", _BASE, "WMT16 En-De", 4, 26.88, 27.49, 27.13, "BLEU"),
    Published(3, "resnet44-cifar10-mixup", "ResNet-44", _C10, 10, 94.60, 95.55),
    Published(3, "wrn28-10-cifar10-mixup", "WRN-28-10", _C10, 10, 97.30, 97.80),
    Published(3, "wrn28-10-cifar100-mixup", "WRN-28-10", _C100, 10, 82.50, 84.30),
    Published(3, "resnet50-imagenet-mixup", _RES50, "ImageNet", 4, 76.70, 77.04),
    Published(4, "resnet44-cifar10-m10", "ResNet-44", _C10, 10, 93.41, 95.03, tta=(94.33, 96.00)),
    Published(4, "darts-cifar10-m10", "DARTS", _C10, 10, 97.63, 97.85, tta=(97.73, 98.13)),
    Published(4, "amoebanet-cifar10-m10", _AMOEBA, _C10, 10, 98.16, 98.24, tta=(98.15, 98.42)),
    Published(4, "wrn28-10-cifar100", "WRN-28-10", _C100, 10, 79.85, 83.45, tta=(80.29, 84.88)),
    Published(4, "resnet50-imagenet-m10", _RES50, "ImageNet", 10, 76.30, 77.85, tta=(77.1, 77.9)),
    _of_figure(
        2, "resnet44-cifar10-23epochs", "ResNet-44", _C10, 32, 93.07, 94.15, baseline_epochs=100
    ),
    _of_figure(
        4, "resnet50-imagenet-40epochs", _RES50, "ImageNet", 4, 76.30, 76.86, baseline_epochs=90
    ),
    _of_figure(4, "resnet50-imagenet-23epochs", _RES50, "ImageNet", 4, None, 75.70),
    _of_figure(5, "resnet50-imagenet-large", _RES50, "ImageNet", 4, 75.86, 76.51),
)


def published(recipe: str) -> list[Published]:
    """The rows of a recipe, tables first; none where the paper has no number."""
    return [row for row in PUBLISHED if row.recipe == recipe]
