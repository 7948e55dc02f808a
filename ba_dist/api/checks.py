"""Refuses what cannot work, before anything starts."""

from dataclasses import replace
from typing import Any

import numpy as np

from ba_dist.config import Augment, Batch, Config, Data, Placement, Run, options
from ba_dist.data.augment import Augmentation
from ba_dist.data.sources import ImageInfo
from ba_dist.errors import ConfigError


def plain(value: Any) -> Any:
    """A number of numpy as one of Python; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def check_whole(name: str, value: Any, least: int) -> int:
    """Raises ConfigError when a value is no whole number of at least `least`."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} is {value!r}; expected a whole number")
    if value < least:
        raise ConfigError(f"{name} is {value}; it must be at least {least}")
    return value


def check_steps(steps: Any, first: Any) -> None:
    """Raises ConfigError when they do not say which steps there are."""
    if steps is not None:
        check_whole("steps", steps, 1)
    check_whole("first", first, 0)


def make_config(
    images: Any,
    augment: Any,
    *,
    batch: tuple[Any, Any, Any],
    image_size: Any,
    classes: Any,
    standardise: Any,
    seed: Any,
    io_threads: Any,
    stall_timeout: Any,
) -> Config:
    """The arguments of a script as a configuration, whose own checks then hold for them too.

    Raises:
        ConfigError: naming the flag of the value that cannot work.
    """
    if not isinstance(augment, Augment):
        raise ConfigError(f"augment is {augment!r}; expected ba_dist.Augment(…)")
    if not isinstance(standardise, bool):
        raise ConfigError(f"standardise is {standardise!r}; expected bool")
    if classes is not None:
        check_whole("classes", classes, 1)
    if not isinstance(images, Data):
        data = Data() if image_size is None else Data(image_size=plain(image_size))
    elif image_size is None:
        data = images
    else:
        raise ConfigError("image_size is part of Data: Data(dataset=…, image_size=…)")
    return Config(
        "script",
        batch=Batch(*map(plain, batch)),
        data=data,
        augment=augment,
        placement=Placement(io_threads=plain(io_threads)),
        run=Run(seed=plain(seed), stall_timeout=plain(stall_timeout)),
    )


def computed_by(config: Config) -> dict[str, Any]:
    """Name → value of each argument that says what is computed, not where."""
    return {
        option.name: option.of(config)
        for option in options()
        if option.part in ("batch", "augment", "data") or option.name == "seed"
        if option.name != "data_dir"  # a folder may have another name on another node
    }


def in_0_to_1(info: ImageInfo) -> ImageInfo:
    """The same dataset, standardised by mean 0 and deviation 1: pixels stay in 0 … 1."""
    channels = info.image_shape[2]
    return replace(info, mean=(0.0,) * channels, std=(1.0,) * channels)


def make_augmentation(
    augment: Augment,
    info: ImageInfo,
    image_size: int | None,
    *,
    own: Any,
    ghost_batch: int,
) -> Augmentation:
    """The augmentation of a script, once a trial has found nothing wrong.

    Args:
        augment: which, and how strong.
        info: of the images.
        image_size: side of the crop; None where nothing is cropped.
        own: the script's function, if it has one.
        ghost_batch: instances in a ghost batch.

    Raises:
        ConfigError: when the parts do not fit each other.
        DataError: when the function gives no uint8 image of the same shape.
    """
    if own is not None and not callable(own):
        raise ConfigError(f"own_augment is {own!r}; expected a function")
    made = Augmentation(augment, info, image_size, own)
    check_augmentation(made)
    keys, sizes = np.zeros(ghost_batch, np.uint64), np.ones((ghost_batch, 2), np.int64)
    made.draw(keys, sizes, ghost_batch)
    return made


def check_augmentation(augmentation: Augmentation) -> None:
    """Refuses augmentations that leave nothing of an image, and tries the script's own one.

    Raises:
        ConfigError: when a size is as large as the image, or the function draws random numbers
            elsewhere.
        DataError: when the function gives no uint8 image of the same shape.
    """
    config, shape = augmentation.config, augmentation.image_shape
    side = min(shape[:2])
    if config.cutout > side:
        raise ConfigError(
            f"cutout is {config.cutout}, more than the {shape[0]}x{shape[1]} pixels of an image;"
            f" use at most {side}"
        )
    if config.pad_crop >= side:
        raise ConfigError(
            f"pad_crop is {config.pad_crop}, so a crop of {shape[0]}x{shape[1]} pixels may hold"
            f" nothing of the image; use at most {side - 1}"
        )
    if augmentation.own is None:
        return
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    first, again = (augmentation.call_own(noise, np.uint64(1)) for _ in range(2))
    if not np.array_equal(first, again):
        raise ConfigError(
            "own_augment gave two images for the same random numbers; it must draw them from the"
            " generator that it is given, and keep nothing between calls"
        )
