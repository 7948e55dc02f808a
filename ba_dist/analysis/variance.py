"""How much of the gradient's variance is between samples and how much between copies, in a run.

The gradients are those of training: of whole ghost batches, with dropout and mixing, each with the
keys of its copies. Two ghost batches see nothing of each other, so a ghost batch is what is drawn
independently; two samples of one are not independent, because they are normalised together.

It is measured afterwards, not while training: a checkpoint is all that it needs, training stays as
it is, and it also works for a run with one copy, whose steps do not tell two copies apart.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist import experiment
from ba_dist.analysis.states import OpenRun, State
from ba_dist.data.batch import Batch, pack
from ba_dist.data.batch import Instances as Rows
from ba_dist.data.pipeline import io_threads
from ba_dist.data.sources import workers
from ba_dist.errors import ConfigError
from ba_dist.rules.keys import Purpose, analysis_keys
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import Permutation
from ba_dist.rules.variance import Split, mean_of, split

# Ghost batches of one estimate, where the run has the samples for so many.
_GHOSTS = 8
# The share of the variance that may come from copies where M is called enough.
SHARE = 0.1


@dataclass(frozen=True)
class Measured:
    """The parts of the variance in one state of the network.

    Args:
        state: of the network.
        split: mean of the estimates.
        error: standard error of each of its numbers; NaN of one estimate.
    """

    state: State
    split: Split
    error: Split

    def as_dict(self, batch_size: int, copies: Sequence[int]) -> dict[str, Any]:
        """As JSON holds it, to nine digits: those behind are rounding."""
        numbers = {
            "variance_of_samples": self.split.samples,
            "variance_of_copies": self.split.copies,
            "squared_mean_gradient": self.split.signal,
            "variance_of_samples_error": self.error.samples,
            "variance_of_copies_error": self.error.copies,
            "squared_mean_gradient_error": self.error.signal,
        }
        rows = [
            {
                "multiplicity": m,
                "variance": _digits(self.split.of_mean(batch_size, m)),
                "share_of_copies": _digits(self.split.share_of_copies(m)),
                "norm": _digits(self.split.norm(batch_size, m)),
            }
            for m in copies
        ]
        return {
            **dataclasses.asdict(self.state),
            **{name: _digits(value) for name, value in numbers.items()},
            "multiplicity_needed": self.split.copies_needed(SHARE),
            "multiplicities": rows,
        }


@dataclass(frozen=True)
class Variances:
    """What was measured of a run.

    Args:
        batch_size: B of the run.
        multiplicity: M of the run.
        ghosts: ghost batches of an estimate.
        ghost_batch: samples of each.
        copies: of each sample, of an estimate.
        repeats: estimates.
        seed: of samples and copies.
        measured: in every state.
    """

    batch_size: int
    multiplicity: int
    ghosts: int
    ghost_batch: int
    copies: int
    repeats: int
    seed: int
    measured: tuple[Measured, ...]

    @property
    def multiplicities(self) -> list[int]:
        """Those that are told of: powers of two to 32, and that of the run."""
        return sorted({1, 2, 4, 8, 16, 32, self.multiplicity})

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        found = dataclasses.asdict(self)
        found["measured"] = [
            part.as_dict(self.batch_size, self.multiplicities) for part in self.measured
        ]
        return found

    def table(self) -> str:
        """For a person."""
        return "\n\n".join(self._lines(part) for part in self.measured)

    def _lines(self, part: Measured) -> str:
        found, error = part.split, part.error
        lines = [
            part.state.title(),
            f"variance of one instance's gradient: between samples"
            f" {_with_error(found.samples, error.samples)}, between copies of a sample"
            f" {_with_error(found.copies, error.copies)}",
            f"{'M':>6}{'variance at B = ' + str(self.batch_size):>24}{'of that with M = 1':>22}"
            f"{'share of copies':>18}{'gradient norm':>16}",
        ]
        once = found.of_mean(self.batch_size, 1)
        for m in self.multiplicities:
            now = found.of_mean(self.batch_size, m)
            mark = " <- the run's M" if m == self.multiplicity else ""
            lines.append(
                f"{m:6}{now:24.4g}{now / once:22.1%}{found.share_of_copies(m):18.1%}"
                f"{found.norm(self.batch_size, m):16.4g}{mark}"
            )
        return "\n".join([*lines, self._advice(found)])

    def _advice(self, found: Split) -> str:
        needed = found.copies_needed(SHARE)
        if needed is None:
            return (
                "samples differ too little from each other, beside their copies, to say how many"
                " copies are enough; --repeats makes it surer"
            )
        return (
            f"with M = {needed} at most {SHARE:.0%} of the variance comes from copies: more copies"
            " make the gradient hardly surer here"
        )


def measure_variance(
    folder: Path,
    which: Sequence[str] = ("newest",),
    data_dir: str | None = None,
    *,
    copies: int = 4,
    repeats: int = 8,
    seed: int = 0,
    done: Callable[[int], object] = lambda estimates: None,
) -> Variances:
    """Measures a run on its training samples; collective over the world.

    Rank r makes estimates r, r + W, … from beginning to end, so the ranks change no number.

    Args:
        folder: of the run.
        which: states of the network, as `OpenRun` has them.
        data_dir: where the data is now; None for where it was in training.
        copies: C of each sample; 2 or more.
        repeats: independent estimates, of 8 ghost batches each (fewer where samples are few); no
            more are made than the run has samples for, because each is of other ones.
        seed: of samples and copies.
        done: is called with the number of estimates that this rank has made since the last time.

    Raises:
        UserError: on all ranks.
    """
    run = OpenRun(folder, which, data_dir)
    size = run.ghost_batch
    ghosts = min(_GHOSTS, len(run.source) // size)
    if ghosts < 2:
        raise ConfigError(
            f"{len(run.source)} training samples are less than two ghost batches of {size}: nothing"
            " tells how samples differ"
        )
    repeats = min(repeats, len(run.source) // (ghosts * size))
    layout = Layout(1, copies, size, 1, size)
    local = experiment.local_gradient(run.made, layout)
    hyper = experiment.hyperparameters(run.config, run.steps_per_epoch)
    measured = []
    for state in run.states():
        local.tell(hyper(state.step))
        estimate = partial(
            _estimate, run, local, layout=layout, ghosts=ghosts, seed=seed, step=state.step
        )
        rows = run.deal(repeats, 3, estimate, done)
        mean, error = mean_of([Split(*row) for row in rows.tolist()])
        measured.append(Measured(state, mean, error))
    batch = run.config.batch
    return Variances(
        batch.batch_size,
        batch.multiplicity,
        ghosts,
        size,
        copies,
        repeats,
        seed,
        tuple(measured),
    )


def _estimate(
    run: OpenRun, local: Any, number: int, *, layout: Layout, ghosts: int, seed: int, step: int
) -> tuple[float, float, float]:
    """The numbers of one `Split`, of other samples than every other one."""
    batches = _batches(run, layout, number * ghosts, ghosts, seed=seed, step=step)
    found = split((_means(local, batch) for batch in batches), layout.batch_size)
    return found.samples, found.copies, found.signal


def _batches(
    run: OpenRun, layout: Layout, first: int, count: int, *, seed: int, step: int
) -> Iterator[Batch]:
    """Ghost batches first … first + count - 1 of a random order, with all their copies."""
    size = layout.batch_size
    order = Permutation(len(run.source), seed, 3, Purpose.PROBE)
    copies = np.repeat(np.arange(layout.multiplicity), size)
    with workers(io_threads(run.config, run.source)) as pool:
        for ghost in range(first, first + count):
            ids = order(ghost * size + np.arange(size))
            images, labels = zip(*pool.map(run.sample, ids.tolist()), strict=True)
            rows = np.tile(ids, layout.multiplicity)
            keys = analysis_keys(seed, rows, copies)
            inputs = pack(
                run.made.task,
                list(images),
                np.array(labels, np.int64),
                keys,
                ghost_batch=size,
                workers=pool,
            )
            yield Batch(step, 0, inputs, Rows(rows, copies, keys), np.zeros((0, 2), np.int64))


def _means(local: Any, batch: Batch) -> Iterator[npt.NDArray[np.float64]]:
    """The mean gradient of each copy of a ghost batch."""
    for gradient, weight in local.of_copies(local.tensors(batch)):
        yield gradient.astype(np.float64) / weight


def _with_error(value: float, error: float) -> str:
    """`57.5 (± 3)`; one estimate has no error."""
    return f"{value:.4g}" if math.isnan(error) else f"{value:.4g} (± {error:.1g})"


def _digits(value: float) -> float:
    return float(f"{value:.9g}")
