"""Copies: parameters from keys, pixels from parameters."""

from ba_dist.data.augment.augmentation import (
    Augmentation,
    Own,
    Parameters,
    check,
    cutout,
    normalise,
)

__all__ = ["Parameters", "Augmentation", "Own", "check", "normalise", "cutout"]
