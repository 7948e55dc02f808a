"""What is known of networks without building them; a test builds some and compares."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """Sizes of a network, for images of its own size.

    Args:
        side: height and width of those images.
        parameters: numbers that are trained.
        statistics: numbers that are not: moving statistics.
        kept: numbers that an instance leaves for the backward pass, at least.
    """

    side: int
    parameters: int
    statistics: int
    kept: int


NETWORKS = {
    "resnet8": Facts(28, 75_002, 480, 114_384),
    "resnet20": Facts(32, 269_722, 1_376, 380_160),
    "resnet44": Facts(32, 658_586, 3_168, 838_912),
    "vgg16": Facts(32, 33_642_442, 8_448, 470_528),
    "wrn28-10": Facts(32, 36_479_194, 17_952, 4_871_680),
    "densenet100-12": Facts(32, 800_032, 23_988, 8_534_742),
    "darts": Facts(32, 3_825_768, 42_184, 17_629_936),
    "amoebanet": Facts(32, 38_089_364, 126_976, 51_327_104),
    "alexnet": Facts(224, 61_110_184, 18_688, 565_296),
    "mobilenet": Facts(224, 4_231_976, 21_888, 10_307_980),
    "resnet18": Facts(224, 11_689_512, 9_600, 4_719_852),
    "resnet50": Facts(224, 25_557_032, 53_120, 20_270_572),
    "resnet101": Facts(224, 44_549_160, 105_344, 30_506_476),
}
