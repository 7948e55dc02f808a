"""The values that a run has: one frozen tree of dataclasses, validated when it is made.

Every field is also a flag of `ba-dist train` (`batch_size` → `--batch-size`), so names are unique
over the whole tree. `Batch`, `Data`, `Augment`, `Model`, `Optimizer` and the seed say what is
computed; `Placement` and `Run` say where, how it is written down and when it stops.
"""

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from ba_dist.config.option import Option, check, options_of, setting
from ba_dist.rules.schedules import Regime, Scale


@dataclass(frozen=True)
class Batch:
    """What one step trains on."""

    batch_size: int = setting(64, "distinct samples per step over all groups (B)", low=1)
    multiplicity: int = setting(1, "augmented copies of each sample in a step (M)", low=1)
    ghost_batch_size: int = setting(32, "instances that are normalised together", low=1)


@dataclass(frozen=True)
class Placement:
    """Where it is computed; none of this changes the result."""

    group_size: int | None = setting(
        None, "ranks that share one batch (R); default gcd(M, ranks)", low=1
    )
    microbatch: int | None = setting(
        None, "instances that go through the network at once; default 32 on CPU, 256 on GPU", low=1
    )
    recompute: bool = setting(
        False,
        "compute activations again in the backward pass: about half the memory, a third more time",
    )
    bucket_mb: float = setting(
        4.0,
        "megabytes of gradients that are sent at a time, while others are computed; 0: all at the"
        " end",
        low=0.0,
    )
    io: Literal["replicate", "broadcast", "cooperative"] = setting(
        "cooperative", "how a group reads its batch"
    )
    exchange: Literal["auto", "encoded", "decoded"] = setting(
        "auto",
        "what goes between the nodes of a group, records or decoded samples; auto: encoded if"
        " broadcast, the faster one if cooperative, measured at the start",
    )
    prefetch: int = setting(2, "batches read ahead of training", low=1)
    io_threads: int | None = setting(
        None,
        "records read, decoded or augmented at a time; default the cores, at least 4; 1 for"
        " samples in memory",
        low=1,
    )


@dataclass(frozen=True)
class Data:
    """The samples."""

    dataset: str = setting("fashion_mnist", "name of the dataset (`ba-dist data list` shows them)")
    data_dir: str | None = setting(
        None, "where the data is, or is to be prepared; default $BA_DIST_DATA, then the cache"
    )
    train_samples: int | None = setting(
        None, "train on N samples only, an even share of all", low=1
    )
    val_samples: int | None = setting(
        None, "evaluate on N samples only, an even share of all", low=1
    )
    image_size: int = setting(
        32,
        "height and width that the network sees, of images of any size and of synthetic ones",
        low=1,
    )
    image_channels: int = setting(3, "channels of synthetic images", low=1)
    languages: str = setting(
        "en-de", "of sentence pairs: SOURCE-TARGET, as the endings of the files have them"
    )
    row_tokens: int = setting(
        256, "tokens of a row of sentence pairs, on each side: a sample of translation", low=8
    )
    subwords: int | None = setting(
        None,
        "size of the vocabulary of sentence pairs; default 32000 for a million pairs or more, else"
        " 8000",
        low=300,
        high=65_535,
    )
    bptt: int = setting(
        70, "of a text: tokens of each row in a step, about (some steps have half)", 1, 512
    )
    context: int = setting(
        140, "of a text: tokens read before those that are scored in evaluation", low=0
    )
    least_count: int = setting(
        1, "of a text: how often a word must occur; rarer ones are <unk>", low=1
    )
    shuffle: Literal["full", "block"] = setting(
        "full", "full: any order is as likely; block: blocks of consecutive records, mixed"
    )
    shuffle_block: int = setting(128, "consecutive records of a block", low=1)
    shuffle_window: int = setting(32, "blocks that are mixed", low=1)
    on_corrupt: Literal["stop", "skip"] = setting(
        "stop", "a corrupt record ends the run, or a later sample takes its place"
    )
    corrupt_budget: int = setting(100, "corrupt records after which even skip stops", low=0)


@dataclass(frozen=True)
class Augment:
    """What makes the copies of a sample differ."""

    crop: Literal["none", "random-resized", "resize-random"] = setting(
        "none", "how images of any size become squares of --image-size; none: they already are"
    )
    crop_area: float = setting(
        0.08, "smallest share of the image that random-resized takes", low=0.001, high=1.0
    )
    resize: int = setting(
        256, "shorter side before the crop, in evaluation and for resize-random", low=1
    )
    pad_crop: int = setting(0, "pad by so many zero pixels, then crop at random; 0 is off", low=0)
    flip: bool = setting(False, "mirror left and right with probability 1/2")
    auto_augment: Literal["none", "cifar10", "imagenet"] = setting(
        "none", "learned policy of AutoAugment"
    )
    rand_augment: int = setting(0, "operations of RandAugment on an instance; 0 is off", low=0)
    rand_magnitude: int = setting(
        9, "strength of RandAugment's operations; 10 is AutoAugment's strongest", low=1, high=30
    )
    jitter: float = setting(
        0.0, "brightness, contrast and saturation change by up to this share; 0 is off", 0.0, 1.0
    )
    lighting: float = setting(0.0, "deviation of PCA lighting noise (AlexNet: 0.1); 0 is off", 0.0)
    cutout: int = setting(0, "side of one square of zeros, centred anywhere; 0 is off", low=0)
    mixup: float = setting(0.0, "alpha of mixup; 0 is off", low=0.0)
    cutmix: float = setting(0.0, "alpha of CutMix; 0 is off", low=0.0)


@dataclass(frozen=True)
class Model:
    """The network."""

    model: str = setting(
        "resnet8", "name of the network, or FILE.py:FUNCTION or MODULE:FUNCTION of your own"
    )
    init_from: str | None = setting(
        None, "start from the weights of a run directory, .npz, .keras or .h5 file"
    )
    bn_momentum: float = setting(0.9, "share of the old moving statistics kept by a step", 0.0, 1.0)
    drop_path: float = setting(
        0.0, "share of edges that drop-path zeroes at last, in darts and amoebanet", 0.0, 0.999
    )
    drop_path_epochs: float = setting(
        0.0, "epochs in which that share grows from 0; 0: it is so from the start", low=0.0
    )
    manifold_mixup: float = setting(
        0.0,
        "alpha of manifold mixup, which mixes the activations of a layer that each step draws; 0 is"
        " off",
        low=0.0,
    )
    activation_penalty: float = setting(
        0.0, "weight of the mean square of an LSTM's last activations (AWD-LSTM: 2)", low=0.0
    )
    slowness_penalty: float = setting(
        0.0, "weight of the mean square of their change from token to token (AWD-LSTM: 1)", low=0.0
    )
    auxiliary_weight: float = setting(
        0.4, "weight of the loss of an auxiliary head, where a network has one", low=0.0
    )


@dataclass(frozen=True)
class Optimizer:
    """How weights move."""

    optimizer: str = setting("sgd", "update rule: sgd, lars, adam or adamw")
    lr: Regime = setting(
        ((0.0, 0.1),),
        "learning rate: one number, or EPOCH:RATE points, e.g. 0:0.1,81:0.01; EPOCH:RATE:SHAPE says"
        " how it goes to the next point",
    )
    lr_shape: Literal["step", "linear", "cosine", "polynomial", "inverse-sqrt"] = setting(
        "step", "how the rate goes from a point of --lr that names no shape"
    )
    lr_power: float = setting(2.0, "power of the polynomial shape", low=0.0)
    lr_scale: Scale = setting(
        1.0,
        "factor on every rate, or one that follows from the batch, (B / --lr-batch-size)^p: none,"
        " sqrt (p = 0.5), linear (1) or batch^P",
    )
    lr_batch_size: int | None = setting(
        None, "batch size that --lr was written for; default that of the recipe", low=1
    )
    regime_adaptation: bool = setting(
        False,
        "multiply the epochs of the run, of --lr, of warm-up and of what else changes in it by"
        " B / --lr-batch-size, so that there are as many updates",
    )
    warmup_epochs: float = setting(0.0, "epochs of linear warm-up", low=0.0)
    warmup_steps: int | None = setting(
        None, "steps of linear warm-up, in place of --warmup-epochs", low=0
    )
    warmup_from: float = setting(
        0.0,
        "rate of the first step of warm-up (Goyal et al.: the rate before --lr-scale)",
        low=0.0,
    )
    momentum: float = setting(0.9, "momentum of SGD and LARS", low=0.0, high=1.0)
    nesterov: bool = setting(False, "Nesterov momentum of SGD")
    trust: float = setting(
        0.001, "trust coefficient of LARS: how far a kernel moves, as a share of its norm", low=0.0
    )
    beta1: float = setting(
        0.9, "share of the old first moment that Adam keeps", low=0.0, high=0.999999
    )
    beta2: float = setting(
        0.999, "share of the old second moment that Adam keeps", low=0.0, high=0.999999
    )
    epsilon: float = setting(
        1e-8, "what Adam adds to the root of the second moment", low=1e-16, high=1.0
    )
    label_smoothing: float = setting(
        0.0, "share of a label that is spread over all classes", low=0.0, high=1.0
    )
    weight_decay: float = setting(
        1e-4,
        "L2 penalty on kernels (not biases, not BatchNorm); adamw: decoupled from the gradient",
        low=0.0,
    )
    clip_norm: float = setting(
        0.0, "norm to which a longer mean gradient is shortened; 0 is off", low=0.0
    )
    norm_matching: int = setting(
        0,
        "make the mean gradient as long as that of one copy, measured every so many steps; 0 is"
        " off",
        low=0,
    )
    ema: float = setting(
        0.0,
        "evaluate and export a moving average of the weights that keeps this share a step, e.g."
        " 0.9999; 0 is off",
        low=0.0,
        high=1.0,
    )
    average_after: int | None = setting(
        None,
        "evaluate and export the mean of the weights from the evaluation on that is worse than"
        " the best of those more than so many before it (AWD-LSTM: 5)",
        low=1,
    )
    weight_decay_epochs: float | None = setting(
        None, "epochs after which that penalty ends; default: it does not", low=0.0
    )


@dataclass(frozen=True)
class Run:
    """How long, how precisely, and what is written down."""

    epochs: int = setting(1, "passes over the training samples", low=1)
    steps: int | None = setting(None, "stop after so many steps instead of epochs", low=1)
    seed: int = setting(0, "seed of weights, order and augmentation", low=0, high=2**63 - 1)
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = setting(
        "fp32", "arithmetic of the network (fp64 is for checking)"
    )
    allreduce_dtype: Literal["fp32", "bf16", "fp16"] | None = setting(
        None, "what gradients are rounded to on their way between ranks; default: they are not"
    )
    repeatable: bool = setting(
        False,
        "on CPUs, in fp32: statistics of ghost batches have the same bits on any number of cores a"
        " rank, so that gradients agree to 1e-6 in place of 3e-3; slower (fp64 always does it)",
    )
    run_dir: str | None = setting(None, "run directory; default runs/RECIPE-DATE-TIME")
    resume: bool = setting(True, "go on from the newest checkpoint of the run directory")
    trace: bool = setting(False, "write down every instance of every step, for `ba-dist audit`")
    logger: str | None = setting(
        None, "also log to wandb, mlflow, or what MODULE:FUNCTION of your own gives"
    )
    log_every: int = setting(10, "steps between two lines of metrics.jsonl", low=1)
    eval_every: int = setting(1, "epochs between two evaluations; the last is always done", low=1)
    checkpoint_every: int | None = setting(
        None, "steps between two checkpoints; default once an epoch", low=1
    )
    checkpoint_minutes: float | None = setting(
        None, "minutes between two checkpoints, beside --checkpoint-every", low=0.0
    )
    keep_checkpoints: int = setting(2, "checkpoints that are kept", low=1)
    keep_best: bool = setting(False, "keep the checkpoint of the best evaluation as well")
    on_nonfinite: Literal["stop", "skip"] = setting(
        "stop", "a gradient with NaN or infinity: stop, or leave that update out"
    )
    nonfinite_budget: int = setting(10, "updates that --on-nonfinite skip may leave out", low=0)
    stall_warning: float = setting(
        60.0, "seconds without progress before the missing ranks are named", low=1.0
    )
    stall_timeout: float = setting(
        600.0, "seconds without progress before the job is ended; 0 waits for ever", low=0.0
    )


# What batch augmentation is compared with; `recipes/baselines.py` derives them.
BASELINES = ("none", "fixed-steps", "fixed-samples", "fixed-compute")


@dataclass(frozen=True)
class Config:
    """A recipe with everything filled in.

    `baseline` and `smoke` are no settings: they say how the values came about, and only
    `baseline_of` and `smoke_of` of `ba_dist.recipes` set them.
    """

    recipe: str
    batch: Batch = Batch()
    placement: Placement = Placement()
    data: Data = Data()
    augment: Augment = Augment()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    run: Run = Run()
    baseline: str = "none"
    smoke: bool = False

    def __post_init__(self) -> None:
        for option in options():
            check(option, option.of(self))

    @property
    def title(self) -> str:
        """The recipe, and what was derived from it: `RECIPE-fixed-steps`."""
        baseline = [] if self.baseline == "none" else [self.baseline]
        return "-".join([self.recipe, *baseline, *["smoke"] * self.smoke])


PARTS: dict[str, Any] = {
    f.name: f.type for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.type)
}


@cache
def options() -> tuple[Option, ...]:
    """Every field of the tree, in order."""
    return tuple(option for part, cls in PARTS.items() for option in options_of(part, cls))
