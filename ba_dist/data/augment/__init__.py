"""Copies: parameters from keys, pixels from parameters."""

from ba_dist.data.augment.augmentation import Augmentation, Parameters, cutout, normalise

__all__ = ["Parameters", "Augmentation", "normalise", "cutout"]
