"""Copies: parameters from keys, pixels from parameters."""

from ba_dist.data.augment.augmentation import Augmentation, Own, Parameters, cutout, normalise

__all__ = ["Parameters", "Augmentation", "Own", "normalise", "cutout"]
