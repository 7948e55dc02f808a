"""Augmentation: draw parameters from keys, render pixels from parameters, finish in TensorFlow.

`draw` is numpy, and depends on keys, sizes of images and positions in the ghost batch. `render`
makes the uint8 pixels of one instance by OpenCV; several threads call it at a time.
`finish` is TensorFlow, for many instances at once, and gives the same bits for one as for many. So
an instance's pixels depend on its key and its sample (and, with mixup or CutMix, on those of its
partner) and on nothing else.

In order: crop and resize, pad and crop, flip, AutoAugment or RandAugment, colour jitter, a script's
own function; then lighting, normalise, cutout, mixup or CutMix.

Shape suffixes: n instances, H height, W width, C channels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist.config import Augment
from ba_dist.data.augment import auto_augment, colour, crop, mixing, rand_augment
from ba_dist.data.augment.operations import Pixels
from ba_dist.data.sources import Image, ImageInfo
from ba_dist.errors import ConfigError, DataError
from ba_dist.rules.keys import Uint64s, generator, integers, uniforms

Parameters = dict[str, npt.NDArray[Any]]
# (image uint8 [H, W, C], random numbers of the instance) → uint8 image of the same shape
Own = Callable[[Image, np.random.Generator], Image]

# Each draw has its own stream. A new augmentation gets a new number; the others keep theirs.
_CROP_Y, _CROP_X, _FLIP, _CUTOUT_Y, _CUTOUT_X = 0, 1, 2, 3, 4
_BOX, _AUTO_AUGMENT, _JITTER, _LIGHTING, _MIX = 5, 6, 7, 8, 9
_RAND_AUGMENT, _OWN, MANIFOLD = 10, 11, 12

_FINISH = (
    *("lighting", "cutout_y", "cutout_x"),
    *("mix_partner", "mix_label", "mix_pixels", "mix_box"),
)


def check(config: Augment) -> None:
    """Refuses augmentations that exclude each other.

    Raises:
        ConfigError: naming both.
    """
    if config.auto_augment != "none" and config.rand_augment:
        raise ConfigError(
            f"--auto-augment {config.auto_augment} and --rand-augment {config.rand_augment} exclude"
            " each other; leave one out: --auto-augment none or --rand-augment 0"
        )


class Augmentation:
    """Makes the copies of a sample differ, and makes the plain image for evaluation.

    Args:
        config: which augmentations, and how strong.
        info: image shape, mean and standard deviation of the dataset.
        image_size: side in pixels of the square that the network gets, where images are cropped or
            vary in size (their height and width in `info` are 0).
        own: a function of a person's own, called after the others that make uint8 pixels; several
            threads may call it at a time.

    Raises:
        ConfigError: naming the flag that does not fit the others or the dataset.

    Example:
        parameters = augmentation.draw(keys, sizes, ghost_batch=32)
        for i, image in enumerate(images):
            augmentation.render(image, parameters, i, pixels[i])
        finishing = augmentation.finish_parameters(parameters)
        inputs = augmentation.finish(pixels, finishing)
    """

    def __init__(
        self,
        config: Augment,
        info: ImageInfo,
        image_size: int | None = None,
        own: Own | None = None,
    ):
        self.config = config
        self.info = info
        self.own = own
        height, width, channels = info.image_shape
        if config.crop != "none" or height == 0:
            if image_size is None:
                raise ConfigError("--image-size is needed for images that are cropped")
            height = width = image_size
        self.image_shape = (height, width, channels)
        self._check()

    def _check(self) -> None:
        config, (height, _, channels) = self.config, self.image_shape
        check(config)
        coloured = {
            "--auto-augment": config.auto_augment != "none",
            "--rand-augment": config.rand_augment > 0,
            "--jitter": config.jitter > 0,
            "--lighting": config.lighting > 0,
        }
        for flag in [flag for flag, wanted in coloured.items() if wanted and channels != 3]:
            raise ConfigError(
                f"{flag} needs images of 3 channels; those of {self.info.name} have {channels}"
            )
        if config.crop == "none":
            return
        if channels not in (1, 3):
            raise ConfigError(
                f"--crop {config.crop} resizes images of 1 or 3 channels; those of"
                f" {self.info.name} have {channels}"
            )
        if config.resize < height:
            raise ConfigError(
                f"--resize {config.resize} is less than --image-size {height}, which is cut out of"
                f" it in evaluation; use at least {height}"
            )

    def draw(self, keys: Uint64s, sizes: npt.NDArray[np.int64], ghost_batch: int) -> Parameters:
        """Draws the parameters of each instance; the configuration alone says which there are.

        Args:
            keys: uint64 [n], in the rank's order: every `ghost_batch` consecutive instances are
                one ghost batch.
            sizes: height and width of each instance's decoded image, int64 [n, 2].
            ghost_batch: number of instances in a ghost batch; used only by mixup and CutMix.

        Returns:
            Arrays with n rows. `box` int32 [n, 4] or [n, 2] is the crop, in the image or of the
            resized image (top, left, height, width); `crop_y`, `crop_x` int32 [n] the corner in
            the padded image; `flip` int32 [n] is 1 where it is mirrored; `cutout_y`, `cutout_x`
            int32 [n] the centre of the square of zeros. For the others see `auto_augment.draw`,
            `rand_augment.draw`, `colour.draw_jitter`, `colour.lighting_offsets` and `mixing.draw`.

        Raises:
            ConfigError: when instances are to be mixed and a ghost batch holds only one.
        """
        config, (height, width, _) = self.config, self.image_shape
        drawn: dict[str, npt.NDArray[Any]] = {}
        if config.crop == "random-resized":
            numbers = uniforms(keys, crop.BOX_NUMBERS, _BOX)
            drawn["box"] = crop.random_resized_boxes(numbers, sizes, config.crop_area)
        elif config.crop == "resize-random":
            numbers = uniforms(keys, 2, _BOX)
            drawn["box"] = crop.random_corners(numbers, sizes, config.resize, height)
        if config.pad_crop:
            drawn["crop_y"] = integers(keys, 0, 2 * config.pad_crop, _CROP_Y)
            drawn["crop_x"] = integers(keys, 0, 2 * config.pad_crop, _CROP_X)
        if config.flip:
            drawn["flip"] = integers(keys, 0, 1, _FLIP)
        if config.cutout:
            drawn["cutout_y"] = integers(keys, 0, height - 1, _CUTOUT_Y)
            drawn["cutout_x"] = integers(keys, 0, width - 1, _CUTOUT_X)
        drawn = {name: values.astype(np.int32) for name, values in drawn.items()}
        if self.own:
            drawn["own_key"] = keys
        return drawn | self._draw_colours(keys) | self._draw_mixing(keys, ghost_batch)

    def _draw_colours(self, keys: Uint64s) -> Parameters:
        config = self.config
        drawn: dict[str, npt.NDArray[Any]] = {}
        if config.auto_augment != "none":
            numbers = uniforms(keys, auto_augment.NUMBERS, _AUTO_AUGMENT)
            drawn |= auto_augment.draw(numbers, auto_augment.POLICIES[config.auto_augment])
        if config.rand_augment:
            numbers = uniforms(keys, config.rand_augment * rand_augment.NUMBERS, _RAND_AUGMENT)
            drawn |= rand_augment.draw(numbers)
        if config.jitter:
            numbers = uniforms(keys, colour.JITTER_NUMBERS, _JITTER)
            drawn |= colour.draw_jitter(numbers, config.jitter)
        if config.lighting:
            numbers = uniforms(keys, 3, _LIGHTING)
            drawn["lighting"] = colour.lighting_offsets(numbers, config.lighting)
        return drawn

    def _draw_mixing(self, keys: Uint64s, ghost_batch: int) -> Parameters:
        if not (self.config.mixup or self.config.cutmix):
            return {}
        height, width, _ = self.image_shape
        return mixing.draw(
            uniforms(keys, mixing.NUMBERS, _MIX),
            mixup=self.config.mixup,
            cutmix=self.config.cutmix,
            ghost_batch=ghost_batch,
            height=height,
            width=width,
        )

    def render(self, image_HWC: Image, parameters: Parameters, i: int, out_HWC: Image) -> None:
        """Writes the pixels of one instance, for `finish` to complete; for several threads.

        Args:
            image_HWC: uint8, the decoded image.
            parameters: from `draw`.
            i: the instance, a row of the parameters.
            out_HWC: uint8 of `image_shape`, C-contiguous, written.

        Raises:
            DataError: when the image has another size than the network and is not cropped.
        """
        config = self.config
        mirrored = config.flip and bool(parameters["flip"][i])
        if config.pad_crop:
            if config.crop != "none":
                into = np.empty_like(out_HWC)
                self._resize(image_HWC, parameters, i, into, mirrored=False)
                image_HWC = into
            self._check_shape(image_HWC)
            top, left = parameters["crop_y"].item(i), parameters["crop_x"].item(i)
            padding = config.pad_crop
            crop.pad_and_crop(
                image_HWC, out_HWC, padding=padding, top=top, left=left, mirrored=mirrored
            )
        else:
            self._resize(image_HWC, parameters, i, out_HWC, mirrored=mirrored)
        self._recolour(parameters, i, out_HWC)
        if self.own:
            out_HWC[...] = self.call_own(out_HWC, parameters["own_key"][i])

    def _resize(
        self, image_HWC: Image, parameters: Parameters, i: int, out_HWC: Image, *, mirrored: bool
    ) -> None:
        """Writes the drawn crop of an image, or the image as it is, mirrored or not."""
        if self.config.crop == "random-resized":
            top, left, height, width = parameters["box"][i].tolist()
            part = image_HWC[top : top + height, left : left + width]
            crop.resize(part, out_HWC, mirrored=mirrored)
        elif self.config.crop == "resize-random":
            top, left = parameters["box"][i].tolist()
            shorter = self.config.resize
            crop.resize_shorter(
                image_HWC, out_HWC, shorter=shorter, corner=(top, left), mirrored=mirrored
            )
        else:
            self._check_shape(image_HWC)
            crop.copy(image_HWC, out_HWC, mirrored=mirrored)

    def _recolour(self, parameters: Parameters, i: int, out_HWC: Image) -> None:
        """Applies AutoAugment or RandAugment, and jitter, to the pixels in `out_HWC`."""
        policy, strength = self.config.auto_augment, self.config.jitter
        if policy == "none" and not self.config.rand_augment and not strength:
            return
        pixels = Pixels(out_HWC)
        if policy != "none":
            pair = auto_augment.POLICIES[policy][parameters["auto_policy"][i]]
            auto_augment.apply(pixels, pair, parameters["auto_steps"][i])
        if self.config.rand_augment:
            operations, signs = (parameters[f"rand_{name}"][i] for name in ("operations", "signs"))
            rand_augment.apply(pixels, operations, signs, self.config.rand_magnitude)
        if strength:
            order = int(parameters["jitter_order"][i])
            colour.jitter(pixels, order, parameters["jitter_factors"][i])
        pixels.write(out_HWC)

    def call_own(self, image_HWC: Image, key: np.uint64) -> Image:
        """What the own function makes of an image, with random numbers that follow from the key.

        Raises:
            DataError: when it is no uint8 image of the same shape.
        """
        assert self.own
        made: Any = self.own(image_HWC.copy(), generator(key, _OWN))
        found = (getattr(made, "shape", None), getattr(made, "dtype", type(made).__name__))
        if found != (image_HWC.shape, np.uint8):
            raise DataError(
                f"own_augment gave {found[1]} of shape {found[0]} for an image uint8"
                f" {image_HWC.shape}; it must return uint8 of the same shape"
            )
        return np.asarray(made)

    def plain(self, image_HWC: Image, out_HWC: Image) -> None:
        """Writes the pixels for evaluation: shorter side resized, centre crop; else a copy.

        Args:
            image_HWC: uint8, the decoded image.
            out_HWC: uint8 of `image_shape`, C-contiguous, written.

        Raises:
            DataError: when the image has another size than the network and is not cropped.
        """
        if self.config.crop != "none":
            crop.resize_shorter(image_HWC, out_HWC, shorter=self.config.resize)
            return
        self._check_shape(image_HWC)
        out_HWC[...] = image_HWC

    def _check_shape(self, image_HWC: Image) -> None:
        if image_HWC.shape != self.image_shape:
            found, expected = ("x".join(map(str, s)) for s in (image_HWC.shape, self.image_shape))
            raise DataError(
                f"an image of {self.info.name} is {found}, the network takes {expected}; --crop"
                " random-resized or resize-random brings images to one size"
            )

    def finish_parameters(self, drawn: Parameters) -> Parameters:
        """Those of the drawn parameters that `finish` and the mixing of labels use.

        Returns:
            float32 or int32 [n, …] each.
        """
        return {name: drawn[name] for name in _FINISH if name in drawn}

    def finish(self, images_nHWC: Any, parameters: dict[str, Any]) -> Any:
        """Lighting, normalise, cutout, mixup or CutMix.

        Args:
            images_nHWC: uint8 [n, *image_shape].
            parameters: of `finish_parameters`; none gives the plain image, as for evaluation.

        Returns:
            float32 [n, *image_shape].
        """
        images_nHWC = normalise(
            images_nHWC, self.info.mean, self.info.std, parameters.get("lighting")
        )
        if "cutout_y" in parameters:
            images_nHWC = cutout(
                images_nHWC, self.config.cutout, parameters["cutout_y"], parameters["cutout_x"]
            )
        if "mix_partner" in parameters:
            images_nHWC = mixing.mix(images_nHWC, parameters)
        return images_nHWC


def normalise(
    images_nHWC: Any,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    offsets_nC: Any = None,
) -> Any:
    """(x - (255·mean - offset)) · 1 / (255·std), channel by channel, as float32.

    Multiplied, not divided, and in this order: TensorFlow's graph optimiser replaces a division by
    a constant, and takes sums with two constants apart. The pixels of the step's graph would differ
    in their last bit from those made operation by operation, which a trace has.

    Args:
        images_nHWC: uint8 [n, H, W, C].
        mean: of the pixels in 0 … 1.
        std: of the same.
        offsets_nC: float32 [n, C] of PCA lighting, for pixels in 0 … 255.
    """
    import tensorflow as tf

    shape = images_nHWC.shape
    centre = tf.constant(255 * np.asarray(mean), tf.float32)[None]
    if offsets_nC is not None:
        centre = centre - offsets_nC
    scale = tf.constant(1 / (255 * np.asarray(std)), tf.float32)
    # Rows of pixels, each with its own constants: TensorFlow repeats three of them for every pixel
    # so slowly that it took four times as long.
    rows = tf.reshape(tf.cast(images_nHWC, tf.float32), [-1, shape[1], shape[2] * shape[3]])
    rows = (rows - tf.tile(centre, [1, shape[2]])[:, None]) * tf.tile(scale, [shape[2]])
    return tf.reshape(rows, [-1, *shape[1:]])


def cutout(images_nHWC: Any, size: int, y_n: Any, x_n: Any) -> Any:
    """Zeros one square of `size` pixels centred at (y, x), clipped at the border.

    The square covers y - size//2 … y - size//2 + size - 1. Source: DeVries and Taylor 2017,
    "Improved Regularization of Convolutional Neural Networks with Cutout".
    """
    import tensorflow as tf

    _, height, width, _ = images_nHWC.shape

    def inside(centre_n: Any, length: int) -> Any:
        offset = tf.range(length) - (centre_n[:, None] - size // 2)
        return (offset >= 0) & (offset < size)

    hole = inside(y_n, height)[:, :, None] & inside(x_n, width)[:, None, :]
    return tf.where(hole[..., None], tf.zeros((), images_nHWC.dtype), images_nHWC)
