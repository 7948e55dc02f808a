"""The two splits that every dataset is brought to, whatever its files call them."""

from ba_dist.config import Data

SPLITS = ("train", "validation")
FLAGS = {"train": "--train-samples", "validation": "--val-samples"}


def wanted_samples(config: Data) -> dict[str, int | None]:
    """Split → how many of its samples a person asked for; None or 0 for all."""
    return {"train": config.train_samples, "validation": config.val_samples}
