"""Copies: parameters from keys, pixels from parameters."""

from ba_dist.data.augment.augmentation import Augmentation, Parameters, check, cutout, normalise

__all__ = ["Parameters", "Augmentation", "check", "normalise", "cutout"]
