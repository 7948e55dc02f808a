"""Batch augmentation as the input of a script of one's own: training batches and evaluation."""

import atexit
import functools
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ba_dist.api.checks import (
    check_steps,
    check_whole,
    computed_by,
    in_0_to_1,
    make_augmentation,
    make_config,
    plain,
)
from ba_dist.api.passes import Passes, fail
from ba_dist.api.samples import check_images, open_evaluation, open_samples
from ba_dist.api.words import in_parameters, same_on_all_ranks
from ba_dist.comm import Comm
from ba_dist.config import Augment, Data, layout_of, plan_steps
from ba_dist.data.augment import Own
from ba_dist.data.pipeline import io_threads as io_threads_of
from ba_dist.data.sources import Source, Workers
from ba_dist.errors import ConfigError, UserError
from ba_dist.evaluate import rank_batches
from ba_dist.tasks.classification import Classification

_UNCHANGED = Augment()


@functools.cache
def _end_calmly() -> None:
    """Lets TensorFlow's threads leave Python before it ends: one that is inside hangs for ever.

    It takes an iterator down in such a thread, and nothing tells when that has gone. Pipelines are
    closed before this wait; with it 0 of 20 scripts hung at their end, without it 5 of 25.
    """
    atexit.register(time.sleep, 0.2)


class BatchAugmentation:
    """Batch augmentation for a training script of one's own: replaces its input pipeline.

    The world is laid out in groups of gcd(M, W) ranks; a group trains on the same samples, each of
    its ranks on its own augmented copies. The gradient is the mean over the world, as ever. The
    same seed gives the same batches on any number of ranks.

    All ranks make it, with the same arguments, and all call `train`, `evaluation` and `average`
    together.

    Args:
        images: uint8 [N, H, W, C], all of them on every rank; or `ba_dist.Data(dataset=…,
            data_dir=…)`, a dataset by name, folders or TFRecord shards; or an object with `len`
            whose `[i]` gives (image uint8 [H, W, C], label).
        labels: integers [N] of an array of images.
        comm: what `ba_dist.start()` gave.
        batch_size: B, distinct samples per step over all ranks.
        multiplicity: M, augmented copies of each.
        augment: how copies differ.
        own_augment: a function (image uint8 [H, W, C], numpy.random.Generator) → uint8 image of
            the same shape. It is called after crop, flip, policies and jitter, and before
            normalising, cutout and mixing. All that is random must come from the generator, which
            follows from (seed, epoch, sample, copy) alone. With `io_threads` above 1, several
            threads call it at a time.
        seed: of order and augmentation.
        ghost_batch_size: of the model's GhostBatchNormalization.
        classes: number of classes; default the largest label of the array + 1.
        image_size: side of the square that is cropped, where `augment.crop` is on; `Data` has its
            own.
        standardise: whether pixels are (x - mean) / std, channel by channel, of x in 0 … 1.
            Otherwise they are x in 0 … 1; a cut out square is black then, not the mean.
        io_threads: threads of a rank that read, decode and augment; default 1 for arrays and
            objects, at least 4 for files.
        stall_timeout: seconds that a rank waits for others which have left after another step,
            before it ends the job; 0 waits for ever.

    Attributes:
        mean, std: of each channel, of pixels in 0 … 1; (0, …) and (1, …) without `standardise`.
        classes: number of classes.
        image_shape: (H, W, C) of a batch.
        steps_per_epoch: N // B; the samples that do not fill a batch are dropped, others each
            epoch.
        layout: who computes what, `ba_dist.Layout`.

    Raises:
        ConfigError: on all ranks, naming the parameter and what would work.
        DataError: on all ranks, when a dataset is not available, or samples are no uint8 images.

    Example:
        ba = ba_dist.BatchAugmentation(images, labels, comm=comm, batch_size=64, multiplicity=2)
        for x, y in ba.train(steps=1000): ...
        for x, y in ba.evaluation(other_images, other_labels): ...

    Source: "Augment Your Batch", sections 3 and 4.5.
    """

    def __init__(
        self,
        images: Any,
        labels: npt.ArrayLike | None = None,
        *,
        comm: Comm,
        batch_size: int,
        multiplicity: int,
        augment: Augment = _UNCHANGED,
        own_augment: Own | None = None,
        seed: int = 0,
        ghost_batch_size: int = 32,
        classes: int | None = None,
        image_size: int | None = None,
        standardise: bool = True,
        io_threads: int | None = None,
        stall_timeout: float = 600.0,
    ):
        if not isinstance(comm, Comm):
            raise ConfigError(f"comm is {comm!r}; expected what ba_dist.start() gave")
        _end_calmly()
        with in_parameters():
            self._config = comm.together(
                lambda: make_config(
                    images,
                    augment,
                    batch=(batch_size, multiplicity, ghost_batch_size),
                    image_size=image_size,
                    classes=classes,
                    standardise=standardise,
                    seed=seed,
                    io_threads=io_threads,
                    stall_timeout=stall_timeout,
                )
            )
            own = {"standardise": standardise, "own_augment": _name(own_augment)}
            same_on_all_ranks(computed_by(self._config) | own, comm)
            self.layout = layout_of(self._config, comm.world_size)
            samples = open_samples(
                images, labels, classes=plain(classes), varying=augment.crop != "none", comm=comm
            )
            plan = plan_steps(self._config, len(samples.train), comm.world_size)
            size = self._config.data.image_size if isinstance(images, Data) else plain(image_size)
            augmentation = comm.together(
                lambda: make_augmentation(
                    augment,
                    samples.info if standardise else in_0_to_1(samples.info),
                    size,
                    own=own_augment,
                    ghost_batch=self.layout.ghost_batch,
                )
            )
        self._comm, self._samples, self._task = comm, samples, Classification(augmentation)
        self._workers = Workers(io_threads_of(self._config, samples.train))
        self._passes = Passes(
            self._config,
            self._task,
            samples.train,
            layout=self.layout,
            comm=comm,
            workers=self._workers,
        )
        info = augmentation.info
        self.mean, self.std, self.classes = info.mean, info.std, info.classes
        self.image_shape: tuple[int, int, int] = augmentation.image_shape
        self.steps_per_epoch = plan.steps_per_epoch

    # --- training ---------------------------------------------------------------------------------

    def train(self, steps: int | None = None, first: int = 0) -> Any:
        """The augmented batches of this rank.

        Going through the dataset again (an epoch of Keras) goes on with the next steps. It may be
        left early, on all ranks after the same step.

        Args:
            steps: how many there are each time that one goes through it; None for no end.
            first: step to begin with, from 0, for a script that continues an earlier run.

        Returns:
            A tf.data.Dataset of (images float32 [b·K, H, W, C], labels int64 [b·K], or float32
            [b·K, classes] with mixup or CutMix); its `len()` is `steps`.

        Raises:
            ConfigError: on all ranks, when a number is negative or not the same on all.
        """
        with in_parameters():
            self._comm.together(lambda: check_steps(steps, first))
            same_on_all_ranks({"steps": steps, "first": first}, self._comm)
        rows = self.layout.instances_per_rank
        images_spec = tf.TensorSpec((rows, *self.image_shape), tf.float32)
        batches = tf.data.Dataset.from_generator(
            self._passes.in_turn(steps, first),
            output_signature=(images_spec, self._labels_spec(rows)),
        )
        length = tf.data.INFINITE_CARDINALITY if steps is None else steps
        return batches.apply(tf.data.experimental.assert_cardinality(length))

    # --- evaluation -------------------------------------------------------------------------------

    def evaluation(
        self, images: Any = None, labels: npt.ArrayLike | None = None, batch_size: int = 250
    ) -> Any:
        """This rank's share of the samples to evaluate on, standardised as in training.

        Rank r takes samples r, r + W, r + 2W, …, so over all ranks each counts exactly once. The
        last batch is shorter, and a rank may have one sample, and one batch, less than another: do
        nothing collective in each batch, and put the results together by `average`.

        Args:
            images: as for training; None for the validation samples of `Data`.
            labels: integers [N] of an array of images.
            batch_size: images in a batch.

        Returns:
            A tf.data.Dataset of (images float32 [n, H, W, C], labels as `train` gives them).

        Raises:
            ConfigError: on all ranks, naming the parameter.
        """
        with in_parameters():
            source = self._comm.together(lambda: self._evaluation_source(images, labels))
            self._comm.together(lambda: check_whole("batch_size", batch_size, 1))
            same_on_all_ranks({"the number of images": len(source)}, self._comm)
            if len(source) < self._comm.world_size:
                raise ConfigError(
                    f"images are {len(source)}, fewer than the {self._comm.world_size} ranks;"
                    " each rank needs one to evaluate on"
                )

        def batches() -> Iterator[tuple[Any, Any]]:
            skip = self._config.data.on_corrupt == "skip"
            try:
                for _, (_, rows, numbers, counted) in rank_batches(
                    self._task,
                    source,
                    comm=self._comm,
                    size=batch_size,
                    workers=self._workers,
                    skip=skip,
                ):
                    if counted.any():
                        yield self._plain_inputs(rows[counted], numbers[counted])
            except UserError as error:
                fail(error, self._comm)

        images_spec = tf.TensorSpec((None, *self.image_shape), tf.float32)
        dataset = tf.data.Dataset.from_generator(
            batches, output_signature=(images_spec, self._labels_spec(None))
        )
        length = -(-self.share(len(source)) // batch_size)
        if self._config.data.on_corrupt == "skip":
            return dataset
        return dataset.apply(tf.data.experimental.assert_cardinality(length))

    def transform(self, images: Any) -> Any:
        """Images as the network sees them in evaluation: standardised as in training.

        Args:
            images: uint8 [n, H, W, C]; with `augment.crop`, also a list of images of any sizes.

        Returns:
            float32 [n, *image_shape].

        Raises:
            ConfigError: when they are something else.
            DataError: when they have another size than those of training, and are not cropped.
        """
        with in_parameters():
            listed = isinstance(images, list) and self._config.augment.crop != "none"
            parts = [check_images([one])[0] for one in images] if listed else check_images(images)
            rows = self._task.allocate(len(parts))
            for image, row in zip(parts, rows, strict=True):
                self._task.plain(image, row)
            return self._plain_inputs(rows, np.zeros(len(parts), np.int64))[0]

    def share(self, count: int) -> int:
        """How many of so many samples to evaluate on this rank has."""
        return len(range(self._comm.rank, count, self._comm.world_size))

    def average(self, sums: Any, count: float) -> Any:
        """Σ sums / Σ count over all ranks, exact however samples are shared; collective.

        Args:
            sums: number, or name → number; over this rank's samples.
            count: of this rank's samples.

        Returns:
            float, or name → float, the same on all ranks.
        """
        if isinstance(sums, Mapping):
            *totals, samples = self._comm.sum([*map(float, sums.values()), float(count)])
            return {name: float(t / samples) for name, t in zip(sums, totals, strict=True)}
        total, samples = self._comm.sum([float(sums), float(count)])
        return float(total / samples)

    def _evaluation_source(self, images: Any, labels: Any) -> Source:
        if images is None:
            if self._samples.validation is None:
                raise ConfigError("images are missing; only Data has samples to evaluate on")
            return self._samples.validation
        varying = self._config.augment.crop != "none"
        return open_evaluation(images, labels, self._samples.info, varying=varying)

    # --- both -------------------------------------------------------------------------------------

    def _plain_inputs(self, rows: Any, labels: npt.NDArray[np.int64]) -> tuple[Any, Any]:
        with tf.device("/CPU:0"):
            made = self._task.finish_plain(rows, labels)["images"]
            if self._task.schema["labels"].rank == 2:
                return made, tf.one_hot(labels, self.classes, dtype=tf.float32)
            return made, tf.constant(labels)

    def _labels_spec(self, rows: int | None) -> Any:
        if self._task.schema["labels"].rank == 2:
            return tf.TensorSpec((rows, self.classes), tf.float32)
        return tf.TensorSpec((rows,), tf.int64)


def input_pipeline(
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike,
    comm: Comm,
    batch_size: int,
    multiplicity: int,
    steps: int | None,
    augment: Augment,
    seed: int = 0,
    ghost_batch_size: int = 32,
) -> Any:
    """The training batches of a `BatchAugmentation`, for a script that evaluates by itself.

    The images are standardised; `BatchAugmentation` also does so to those of evaluation.

    Args:
        images: uint8 [N, H, W, C], the same on every rank.
        labels: integers [N].
        comm: what `ba_dist.start()` gave.
        batch_size: B, distinct samples per step over all ranks.
        multiplicity: M, augmented copies of each.
        steps: as `BatchAugmentation.train` has it.
        augment: how copies differ.
        seed: of order and augmentation.
        ghost_batch_size: of the model's GhostBatchNormalization.

    Returns:
        A tf.data.Dataset, as `BatchAugmentation.train` gives it.

    Raises:
        ConfigError: on all ranks, naming the parameter and what would work.
    """
    return BatchAugmentation(
        images,
        labels,
        comm=comm,
        batch_size=batch_size,
        multiplicity=multiplicity,
        augment=augment,
        seed=seed,
        ghost_batch_size=ghost_batch_size,
    ).train(steps)


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
