"""The configuration of a run: one frozen tree of dataclasses, validated when it is made.

Every field is also a flag of `ba-dist train` (`batch_size` → `--batch-size`), so names are unique
over the whole tree. `Batch`, `Data`, `Augment`, `Model`, `Optimizer` and the seed say what is
computed; `Placement` and `Run` say where, how it is written down and when it stops.
"""

import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ba_dist.errors import ConfigError
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import steps_per_epoch
from ba_dist.rules.plan import Plan
from ba_dist.rules.schedules import Regime, check_regime, format_regime, parse_regime

# Raised when the same configuration computes something else than before: a run is not continued or
# evaluated by a version that would give other numbers without a word. 2: strides of networks are
# centred on even pixels; shares of the samples are even; warm-up starts at --warmup-from.
COMPUTATION = 2


def check_computation(number: int) -> None:
    """Refuses what a version with another `COMPUTATION` has left.

    Raises:
        ConfigError: naming both numbers.
    """
    if number != COMPUTATION:
        raise ConfigError(
            f"this run was made by a version of ba_dist whose results differ (computation {number},"
            f" here {COMPUTATION}); use that version, or begin anew: another --run-dir, or"
            " --no-resume"
        )


def _field(default: Any, help: str, low: float | None = None, high: float | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True)
class Batch:
    """What one step trains on."""

    batch_size: int = _field(64, "distinct samples per step over all groups (B)", low=1)
    multiplicity: int = _field(1, "augmented copies of each sample in a step (M)", low=1)
    ghost_batch_size: int = _field(32, "instances that are normalised together", low=1)


@dataclass(frozen=True)
class Placement:
    """Where it is computed; none of this changes the result."""

    group_size: int | None = _field(
        None, "ranks that share one batch (R); default gcd(M, ranks)", low=1
    )
    microbatch: int | None = _field(
        None, "instances that go through the network at once; default 32 on CPU, 256 on GPU", low=1
    )
    io: Literal["replicate", "broadcast", "cooperative"] = _field(
        "cooperative", "how a group reads its batch"
    )
    exchange: Literal["auto", "encoded", "decoded"] = _field(
        "auto", "what a group exchanges; auto: decoded if cooperative, encoded if broadcast"
    )
    prefetch: int = _field(2, "batches read ahead of training", low=1)
    io_threads: int | None = _field(
        None,
        "records read, decoded or augmented at a time; default the cores, at least 4; 1 for"
        " samples in memory",
        low=1,
    )


@dataclass(frozen=True)
class Data:
    """The samples."""

    dataset: str = _field("fashion_mnist", "name of the dataset (`ba-dist data list` shows them)")
    data_dir: str | None = _field(
        None, "where the data is, or is to be prepared; default $BA_DIST_DATA, then the cache"
    )
    train_samples: int | None = _field(None, "train on N samples only, an even share of all", low=1)
    val_samples: int | None = _field(
        None, "evaluate on N samples only, an even share of all", low=1
    )
    image_size: int = _field(
        32, "height and width that the network sees, of pictures and of synthetic images", low=1
    )
    image_channels: int = _field(3, "channels of synthetic images", low=1)
    shuffle: Literal["full", "block"] = _field(
        "full", "full: any order is as likely; block: blocks of consecutive records, mixed"
    )
    shuffle_block: int = _field(128, "consecutive records of a block", low=1)
    shuffle_window: int = _field(32, "blocks that are mixed", low=1)
    on_corrupt: Literal["stop", "skip"] = _field(
        "stop", "a damaged record ends the run, or a later sample takes its place"
    )
    corrupt_budget: int = _field(100, "damaged records after which even skip stops", low=0)


@dataclass(frozen=True)
class Augment:
    """What makes the copies of a sample differ."""

    crop: Literal["none", "random-resized", "resize-random"] = _field(
        "none", "how pictures of any size become squares of --image-size; none: they already are"
    )
    crop_area: float = _field(
        0.08, "smallest share of the picture that random-resized takes", low=0.001, high=1.0
    )
    resize: int = _field(
        256, "shorter side before the crop, in evaluation and for resize-random", low=1
    )
    pad_crop: int = _field(0, "pad by so many zero pixels, then crop at random; 0 is off", low=0)
    flip: bool = _field(False, "mirror left and right with probability 1/2")
    auto_augment: Literal["none", "cifar10", "imagenet"] = _field(
        "none", "learned policy of AutoAugment"
    )
    jitter: float = _field(
        0.0, "brightness, contrast and saturation change by up to this share; 0 is off", 0.0, 1.0
    )
    lighting: float = _field(0.0, "deviation of PCA lighting noise (AlexNet: 0.1); 0 is off", 0.0)
    cutout: int = _field(0, "side of one square of zeros, centred anywhere; 0 is off", low=0)
    mixup: float = _field(0.0, "alpha of mixup; 0 is off", low=0.0)
    cutmix: float = _field(0.0, "alpha of CutMix; 0 is off", low=0.0)


@dataclass(frozen=True)
class Model:
    """The network."""

    model: str = _field("resnet8", "name of the network")
    bn_momentum: float = _field(0.9, "share of the old moving statistics kept by a step", 0.0, 1.0)


@dataclass(frozen=True)
class Optimizer:
    """How weights move."""

    lr: Regime = _field(
        ((0.0, 0.1),),
        "learning rate as EPOCH:RATE points, e.g. 0:0.1,81:0.01; EPOCH:RATE:SHAPE says how it goes"
        " to the next point",
    )
    lr_shape: Literal["step", "linear", "cosine"] = _field(
        "step", "how the rate goes from a point of --lr that names no shape"
    )
    lr_scale: float = _field(1.0, "factor on every rate", low=0.0)
    warmup_epochs: float = _field(0.0, "epochs of linear warm-up", low=0.0)
    warmup_from: float = _field(
        0.0,
        "rate of the first step of warm-up (Goyal et al.: the rate before --lr-scale)",
        low=0.0,
    )
    momentum: float = _field(0.9, "momentum of SGD", low=0.0, high=1.0)
    nesterov: bool = _field(False, "Nesterov momentum")
    label_smoothing: float = _field(
        0.0, "share of a label that is spread over all classes", low=0.0, high=1.0
    )
    weight_decay: float = _field(1e-4, "L2 penalty on kernels (not biases, not BatchNorm)", low=0.0)


@dataclass(frozen=True)
class Run:
    """How long, how precisely, and what is written down."""

    epochs: int = _field(1, "passes over the training samples", low=1)
    steps: int | None = _field(None, "stop after so many steps instead of epochs", low=1)
    seed: int = _field(0, "seed of weights, order and augmentation", low=0, high=2**63 - 1)
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = _field(
        "fp32", "arithmetic of the network (fp64 is for checking)"
    )
    run_dir: str | None = _field(None, "run directory; default runs/RECIPE-DATE-TIME")
    resume: bool = _field(True, "go on from the newest checkpoint of the run directory")
    trace: bool = _field(False, "write down every instance of every step, for `ba-dist audit`")
    log_every: int = _field(10, "steps between two lines of metrics.jsonl", low=1)
    eval_every: int = _field(1, "epochs between two evaluations; the last is always done", low=1)
    checkpoint_every: int | None = _field(
        None, "steps between two checkpoints; default once an epoch", low=1
    )
    checkpoint_minutes: float | None = _field(
        None, "minutes between two checkpoints, beside --checkpoint-every", low=0.0
    )
    keep_checkpoints: int = _field(2, "checkpoints that are kept", low=1)
    on_nonfinite: Literal["stop", "skip"] = _field(
        "stop", "a gradient with NaN or infinity: stop, or leave that update out"
    )
    nonfinite_budget: int = _field(10, "updates that --on-nonfinite skip may leave out", low=0)
    stall_warning: float = _field(
        60.0, "seconds without progress before the missing ranks are named", low=1.0
    )
    stall_timeout: float = _field(
        600.0, "seconds without progress before the job is ended; 0 waits for ever", low=0.0
    )


@dataclass(frozen=True)
class Config:
    """A recipe with everything filled in."""

    recipe: str
    batch: Batch = Batch()
    placement: Placement = Placement()
    data: Data = Data()
    augment: Augment = Augment()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    run: Run = Run()

    def __post_init__(self) -> None:
        for option in options():
            check(option, getattr(getattr(self, option.part), option.name))


@dataclass(frozen=True)
class Option:
    """One field of the tree, as the command line shows it."""

    part: str
    name: str
    type: type
    choices: tuple[str, ...]
    optional: bool
    help: str
    low: float | None
    high: float | None

    @property
    def flag(self) -> str:
        """`--batch-size` for `batch_size`."""
        return "--" + self.name.replace("_", "-")


PARTS: dict[str, Any] = {
    f.name: f.type for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.type)
}


def options() -> Iterator[Option]:
    """Every field of the tree, in order."""
    for part, cls in PARTS.items():
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            kind, choices, optional = _unfold(hints[field.name])
            yield Option(part, field.name, kind, choices, optional, **field.metadata)


def check(option: Option, value: Any) -> None:
    """Raises ConfigError, naming the flag, when a value has the wrong type or is out of range."""
    if value is None and option.optional:
        return
    if option.type is tuple:
        check_regime(value)
        return
    accepted: Any = (int, float) if option.type is float else option.type
    wrong_bool = isinstance(value, bool) and option.type is not bool
    if wrong_bool or not isinstance(value, accepted):
        raise ConfigError(f"{option.flag} is {value!r}; expected {option.type.__name__}")
    if option.type is float and not math.isfinite(value):
        raise ConfigError(f"{option.flag} is {value}; it must be a finite number")
    if option.choices and value not in option.choices:
        raise ConfigError(f"{option.flag} is {value!r}; choose from {', '.join(option.choices)}")
    below = option.low is not None and not value >= option.low
    above = option.high is not None and not value <= option.high
    if below or above:
        expected = " and ".join(
            [f"at least {option.low}"] * (option.low is not None)
            + [f"at most {option.high}"] * (option.high is not None)
        )
        raise ConfigError(f"{option.flag} is {value}; it must be {expected}")


def override(config: Config, changes: dict[str, Any]) -> Config:
    """The same configuration with some fields changed, by their flat names.

    Raises:
        ConfigError: on an unknown name or a value that cannot work.
    """
    homes = {option.name: option.part for option in options()}
    if unknown := sorted(set(changes) - set(homes)):
        raise ConfigError(f"unknown option(s) {', '.join(unknown)}; valid: {', '.join(homes)}")
    parts: dict[str, Any] = {}
    for part in PARTS:
        mine = {name: value for name, value in changes.items() if homes[name] == part}
        parts[part] = dataclasses.replace(getattr(config, part), **mine)
    return dataclasses.replace(config, **parts)


def to_dict(config: Config) -> dict[str, Any]:
    """The tree as JSON can hold it; `from_dict` reads it back."""
    tree = dataclasses.asdict(config)
    tree["optimizer"]["lr"] = format_regime(config.optimizer.lr)
    return tree


def from_dict(tree: dict[str, Any]) -> Config:
    """Reads what `to_dict` wrote; a field that is not there has its default.

    Raises:
        ConfigError: when a part is missing, a field is unknown or a value cannot work.
    """
    try:
        flat = {name: value for part in PARTS for name, value in tree[part].items()}
        flat["lr"] = parse_regime(flat["lr"])
        recipe = tree["recipe"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"this is not a whole configuration: {error!r}") from None
    return override(Config(recipe), flat)


def layout_of(config: Config, world_size: int) -> Layout:
    """The layout of a configuration on so many ranks.

    Raises:
        LayoutError: naming the values that would work.
    """
    return Layout(
        world_size=world_size,
        multiplicity=config.batch.multiplicity,
        batch_size=config.batch.batch_size,
        group_size=config.placement.group_size or 0,
        ghost_batch_size=config.batch.ghost_batch_size,
        microbatch=config.placement.microbatch or 0,
    )


def plan_steps(config: Config, samples: int) -> Plan:
    """The steps of a run; known before the first one.

    Raises:
        ConfigError: when an epoch has not a single whole batch.
    """
    per_epoch = steps_per_epoch(samples, config.batch.batch_size)
    if per_epoch == 0:
        raise ConfigError(
            f"--batch-size {config.batch.batch_size} is more than the {samples} training samples;"
            f" use at most {samples}"
        )
    run = config.run
    return Plan(per_epoch, run.steps or run.epochs * per_epoch, run.eval_every)


def computed_part(config: Config, layout: Layout) -> dict[str, dict[str, Any]]:
    """What a configuration computes, without where: two runs that agree in it can be one."""
    tree = to_dict(config)
    computed = {part: tree[part] for part in ("batch", "augment", "model", "optimizer")}
    computed["batch"]["ghost_batch_size"] = layout.ghost_batch
    # A run that stopped at a corrupt record may go on without it.
    free = ("data_dir", "val_samples", "on_corrupt", "corrupt_budget")
    computed["data"] = {name: v for name, v in tree["data"].items() if name not in free}
    computed["run"] = {name: tree["run"][name] for name in ("seed", "precision")}
    return computed


def differences(old: dict[str, Any], new: dict[str, dict[str, Any]]) -> list[str]:
    """A line for every value of `new` that `old` has not."""
    return [
        f"{name} was {old.get(part, {}).get(name)}, now {value}"
        for part, values in new.items()
        for name, value in values.items()
        if old.get(part, {}).get(name) != value
    ]


def _unfold(hint: Any) -> tuple[type, tuple[str, ...], bool]:
    """(plain type, choices, may be None) of a field's annotation."""
    if typing.get_origin(hint) is Literal:
        return str, typing.get_args(hint), False
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        (inner,) = (a for a in arguments if a is not type(None))
        return inner, (), True
    return (tuple if hint == Regime else hint), (), False
