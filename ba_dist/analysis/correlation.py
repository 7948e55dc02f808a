"""How alike the gradients of two samples are, and those of a sample and an augmented copy of it.

    corr(∇ℓ(x), ∇ℓ(T(x)))    corr(∇ℓ(x), ∇ℓ(y)), same class    corr(∇ℓ(z), ∇ℓ(w)), other classes

Source: "Augment Your Batch", section 2.1 (the assumption on T) and table 1.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ba_dist import tasks
from ba_dist.analysis.states import OpenRun, State
from ba_dist.config import Augment, Config
from ba_dist.data.batch import pack
from ba_dist.data.sources import ImageInfo, Workers
from ba_dist.rules.correlation import Spread, pearson, spread
from ba_dist.rules.keys import Purpose, analysis_keys
from ba_dist.rules.order import Permutation
from ba_dist.rules.pairs import Pairs, choose_pairs

# moving: each sample alone, normalised by the moving statistics, as in evaluation.
# ghost: in a ghost batch with samples that stay the same, by its own statistics, as in training.
Normalised = Literal["moving", "ghost"]

# The augmentations in the order in which they are applied → the settings that belong to each.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "crop": ("crop", "crop_area", "resize"),
    "pad-crop": ("pad_crop",),
    "flip": ("flip",),
    "auto-augment": ("auto_augment",),
    "rand-augment": ("rand_augment", "rand_magnitude"),
    "jitter": ("jitter",),
    "lighting": ("lighting",),
    "cutout": ("cutout",),
}
# Copies that are tried until one differs from the sample: a flip mirrors only every second one.
_TRIES = 64
SAME, DIFFERENT = "(x, y) same class", "(z, w) different classes"

Inputs = dict[str, Any]
Vector = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """The correlations of one kind of pair in one state.

    Args:
        pair: what is compared.
        augmentations: that made T(x); none for two samples.
        spread: of the correlations.
    """

    pair: str
    augmentations: tuple[str, ...]
    spread: Spread


@dataclass(frozen=True)
class Correlations:
    """What was measured of a run.

    Args:
        pairs: of each kind.
        seed: of pairs and augmentations.
        normalised: how samples were normalised.
        left_out: augmentations of the recipe that were not measured.
        states: with the rows of each.
    """

    pairs: int
    seed: int
    normalised: Normalised
    left_out: tuple[str, ...]
    states: tuple[tuple[State, tuple[Row, ...]], ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return {
            "pairs": self.pairs,
            "seed": self.seed,
            "batch_norm": self.normalised,
            "left_out": list(self.left_out),
            "states": [
                {
                    **dataclasses.asdict(state),
                    "ordered": ordered(rows),
                    "rows": [
                        {
                            "pair": row.pair,
                            "augmentations": list(row.augmentations),
                            **dataclasses.asdict(row.spread),
                        }
                        for row in rows
                    ],
                }
                for state, rows in self.states
            ],
        }

    def table(self) -> str:
        """For a person: a line for each kind of pair, a column for each state."""
        names = [row.pair for row in self.states[0][1]]
        heads = [state.name for state, _ in self.states]
        width = max(map(len, [*names, "validation accuracy"]))
        lines = [_line("", heads, width)]
        lines.append(_line("epoch", [f"{state.epoch:g}" for state, _ in self.states], width))
        found = [state.accuracy for state, _ in self.states]
        cells = ["-" if value is None else f"{value:.2%}" for value in found]
        lines.append(_line("validation accuracy", cells, width))
        for i, name in enumerate(names):
            spreads = [rows[i].spread for _, rows in self.states]
            cells = [f"{part.median:.2f} ± {part.deviation:.2f}" for part in spreads]
            lines.append(_line(name, cells, width))
        cells = ["holds" if ordered(rows) else "does not" for _, rows in self.states]
        lines.append(_line("(x, T(x)) > (x, y) > (z, w)", cells, width))
        if lost := sum(row.spread.undefined for _, rows in self.states for row in rows):
            lines.append(f"left out: {lost} pairs, of which a gradient was zero or not finite")
        return "\n".join(lines)


def ordered(rows: Sequence[Row]) -> bool:
    """Whether the medians are in the paper's order, T being all augmentations together."""
    medians = {row.pair: row.spread.median for row in rows}
    copies = [row.spread.median for row in rows if row.augmentations]
    return bool((copies or [1.0])[-1] > medians[SAME] > medians[DIFFERENT])


def correlate(
    folder: Path,
    which: Sequence[str] = ("all",),
    data_dir: str | None = None,
    *,
    pairs: int = 100,
    seed: int = 0,
    normalised: Normalised = "moving",
    done: Callable[[int], object] = lambda pairs: None,
) -> Correlations:
    """Measures a run on its training samples; collective over the world.

    Rank r takes pairs r, r + W, …, each alone, so the ranks change no number.

    Args:
        folder: of the run.
        which: states of the network, as `OpenRun` has them.
        data_dir: where the data is now; None for where it was in training.
        pairs: of each kind.
        seed: of pairs and augmentations.
        normalised: how a sample is normalised.
        done: is called with the number of pairs that this rank has measured since the last time.

    Raises:
        UserError: on all ranks.
    """
    run = OpenRun(folder, which, data_dir)
    chosen = _pairs(run, pairs, seed)
    views = augmentations(run.config.augment)
    names = [f"(x, T(x)) {', '.join(view)}" for view in views] + [SAME, DIFFERENT]
    instances = Instances(run.config, run.info, seed)
    companions = run.comm.together(lambda: _companions(run, instances, seed, normalised))
    gradient = sample_gradient(instances.task, run.made.model, companions)
    measure = partial(_of_pair, run, instances, gradient, chosen=chosen, views=views)
    states = []
    for state in run.states():
        columns = run.deal(pairs, len(names), measure, done).T
        rows = [
            Row(name, view, spread(column))
            for name, view, column in zip(names, [*views, (), ()], columns, strict=True)
        ]
        states.append((state, tuple(rows)))
    return Correlations(pairs, seed, normalised, left_out(run.config), tuple(states))


def _pairs(run: OpenRun, count: int, seed: int) -> Pairs:
    """Chosen by rank 0, which alone reads the samples that are looked at."""

    def choose() -> Pairs:
        return choose_pairs(lambda i: run.sample(i)[1], len(run.source), count, seed)

    chosen = run.comm.together(lambda: choose() if run.comm.rank == 0 else None)
    found: Pairs = run.comm.world.share_object(chosen)
    return found


def _of_pair(
    run: OpenRun,
    instances: "Instances",
    gradient: Callable[[Inputs], Vector],
    pair: int,
    *,
    chosen: Pairs,
    views: Sequence[tuple[str, ...]],
) -> list[float]:
    """The correlations of one pair of each kind, in the order of the rows."""
    x, y, z, w = (int(ids[pair]) for ids in (chosen.x, chosen.y, chosen.z, chosen.w))
    sample = run.sample(x)
    of_x = gradient(instances.plain(*sample))
    found = [pearson(of_x, gradient(instances.copy(*sample, x, view))) for view in views]
    found.append(pearson(of_x, gradient(instances.plain(*run.sample(y)))))
    two = [gradient(instances.plain(*run.sample(i))) for i in (z, w)]
    return [*found, pearson(*two)]


def augmentations(config: Augment) -> list[tuple[str, ...]]:
    """Those that are on, each alone; then one after the other added to those before it."""
    usual = Augment()
    on = [
        name
        for name, (first, *_) in _SETTINGS.items()
        if getattr(config, first) != getattr(usual, first)
    ]
    return [*((name,) for name in on), *(tuple(on[:count]) for count in range(2, len(on) + 1))]


def left_out(config: Config) -> tuple[str, ...]:
    """Augmentations of a recipe that mix two instances: such a copy is not one of x alone."""
    names = ("mixup", "cutmix")
    mixing = [name for name in names if getattr(config.augment, name) > 0]
    return (*mixing, *["manifold mixup"] * (config.model.manifold_mixup > 0))


class Instances:
    """Finished inputs of one sample, plain or augmented; a row each.

    Args:
        config: of the run.
        info: of its dataset.
        seed: of the augmentations.
    """

    def __init__(self, config: Config, info: ImageInfo, seed: int):
        self._config, self._info, self._seed = config, info, seed
        self.task: Any = self._task(config.augment, info)
        self._made: dict[tuple[str, ...], Any] = {}

    def plain(self, image: Any, label: int) -> Inputs:
        """The image as in evaluation, with the label as in training (smoothed if that is on)."""
        rows = self._plain_rows(image)
        return dict(self.task.finish({"images": rows, "labels": np.array([label])}))

    def copy(self, image: Any, label: int, sample: int, view: tuple[str, ...]) -> Inputs:
        """A copy by some of the augmentations; the first one whose pixels differ from the plain.

        Args:
            image: decoded.
            label: its class.
            sample: its id.
            view: names of the augmentations.
        """
        maker = self._maker(view)
        same = self.plain(image, label)["images"].numpy()
        if "crop" not in view:
            image = self._plain_rows(image)[0]
        for number in range(_TRIES):
            keys = analysis_keys(self._seed, np.array([sample]), number)
            packed = pack(
                maker, [image], np.array([label]), keys, ghost_batch=1, workers=Workers(1)
            )
            made = dict(maker.finish(packed))
            if not np.array_equal(made["images"].numpy(), same):
                break
        return made

    def _plain_rows(self, image: Any) -> Any:
        rows = self.task.allocate(1)
        self.task.plain(image, rows[0])
        return rows

    def _maker(self, view: tuple[str, ...]) -> Any:
        if view not in self._made:
            names = [name for part in view for name in _SETTINGS[part]]
            chosen = Augment(**{name: getattr(self._config.augment, name) for name in names})
            # Without the crop it begins from the plain image, which has the network's size.
            shape = self._info.image_shape if "crop" in view else self.task.facts["image_shape"]
            info = dataclasses.replace(self._info, image_shape=tuple(shape))
            self._made[view] = self._task(chosen, info)
        return self._made[view]

    def _task(self, augment: Augment, info: ImageInfo) -> Any:
        alone = dataclasses.replace(augment, mixup=0.0, cutmix=0.0)
        model = dataclasses.replace(self._config.model, manifold_mixup=0.0)
        config = dataclasses.replace(self._config, augment=alone, model=model)
        return tasks.build("classification", config, info)


def sample_gradient(task: Any, model: Any, companions: Any = None) -> Callable[[Inputs], Vector]:
    """Inputs of one instance → the gradient of its loss [parameters], all trainable weights.

    Args:
        task: whose loss is differentiated.
        model: Keras model.
        companions: images [n, H, W, C] that are normalised together with the instance and whose
            losses do not count; None where it is normalised by the moving statistics.
    """
    import tensorflow as tf

    from ba_dist.models.layers.microbatch import Microbatch, enter

    def alone(images: Any, training: bool) -> Any:
        return model(images, training=False)

    def among(images: Any, training: bool) -> Any:
        # As if the backward pass computed it again: the moving statistics stay.
        keys = tf.zeros(1 + len(companions), tf.uint64)
        with enter(Microbatch(tf.constant(True), 1, keys=keys, again=True)):
            answers = model(tf.concat([images, companions], 0), training=True)
        return [part[:1] for part in answers] if isinstance(answers, list) else answers[:1]

    dtype = model.variables[0].dtype

    def flat(inputs: Inputs) -> Any:
        inputs = {n: tf.cast(t, dtype) if t.dtype.is_floating else t for n, t in inputs.items()}
        with tf.GradientTape() as tape:
            loss = task.loss(alone if companions is None else among, inputs).total
        weights = [v.value for v in model.trainable_variables]
        gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
        return tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)

    graph = tf.function(flat, reduce_retracing=True, autograph=False)
    return lambda inputs: graph(inputs).numpy()


def _companions(run: OpenRun, instances: Instances, seed: int, normalised: Normalised) -> Any:
    if normalised == "moving":
        return None
    count = min(run.ghost_batch - 1, len(run.source))
    ids = Permutation(len(run.source), seed, 2, Purpose.PROBE)(np.arange(count))
    rows = [instances.plain(*run.sample(int(i)))["images"].numpy() for i in ids]
    dtype = run.made.model.variables[0].dtype
    empty = np.zeros((0, *instances.task.facts["image_shape"]), dtype)
    return np.concatenate([empty, *rows]).astype(dtype)


def _line(name: str, cells: Sequence[str], width: int) -> str:
    return f"{name:{width}}" + "".join(f"{cell:>16}" for cell in cells)
