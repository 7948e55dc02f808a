"""A run opened for measuring: its network at the start and at its checkpoints, on all ranks."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ba_dist import experiment, models, runtime, trained
from ba_dist.comm import start
from ba_dist.config import Config
from ba_dist.data.catalog import digest, open_dataset
from ba_dist.data.sources import Image, ImageInfo, Source
from ba_dist.errors import ConfigError, CorruptRecord, DataError, agreed
from ba_dist.health import devices
from ba_dist.models import variables
from ba_dist.rules.layout import Layout
from ba_dist.run import checkpoint
from ba_dist.run.run_dir import epoch_event

INITIAL, ALL = "initial", "all"


@dataclass(frozen=True)
class State:
    """What the network's weights are at a moment of the run.

    Args:
        name: `initial`, or the checkpoint as it was asked for.
        step: steps that were done.
        epoch: the same in epochs.
        accuracy: of the validation after that step; None where there was none.
    """

    name: str
    step: int
    epoch: float
    accuracy: float | None

    def title(self) -> str:
        """For a person."""
        found = "" if self.accuracy is None else f", validation accuracy {self.accuracy:.2%}"
        return f"{self.name} (step {self.step}, epoch {self.epoch:g}{found})"


class OpenRun:
    """A run that has learned classes, and its training samples. Made on all ranks together.

    The network is of float32, or float64 where the run was; a run in half precision is measured
    in float32.

    Args:
        folder: of the run.
        which: states: `initial` (the weights of the run's seed, or those of --init-from),
            `newest`, `best`, the number of a step, `all` (initial and every step that is there).
        data_dir: where the data is now; None for where it was in training.

    Raises:
        UserError: on all ranks.
    """

    def __init__(self, folder: Path, which: Sequence[str], data_dir: str | None = None):
        self.comm = comm = start()
        config, self._facts = comm.together(lambda: _config(folder, data_dir))
        self._folder = folder
        self._names = comm.world.share_object(
            comm.together(lambda: _names(folder, which) if comm.rank == 0 else None)
        )
        # One thread: a gradient's sums must not depend on the cores that a rank has for itself.
        comm.together(
            lambda: runtime.prepare(comm.node.rank, comm.node.size, comm.cores, threads=1)
        )
        devices.check(comm)
        dataset = open_dataset(config.data, comm)
        self.source: Source = dataset.train
        here, there = digest(dataset.train), self._facts["data"].get("train_digest")
        if here != there:
            raise agreed(
                DataError(
                    f"the training samples opened here are not those of {folder}: their digest is"
                    f" {here}, the run's {there}; --data-dir names where its data is"
                )
            )
        assert isinstance(dataset.info, ImageInfo)  # as the task of the run wants them
        self.info = dataset.info
        self.made = comm.together(lambda: trained.network(config, self._facts, self.info))
        if config.model.init_from and INITIAL in self._names:
            self._start_from()
        alike = variables.alike(self.made.model)
        self._initial = {name: variable.numpy() for name, variable in alike.items()}

    @property
    def config(self) -> Config:
        """Of the run, but in the precision of the network that is measured."""
        return self.made.config

    @property
    def steps_per_epoch(self) -> int:
        """N // B."""
        return int(self._facts["steps_per_epoch"])

    @property
    def ghost_batch(self) -> int:
        """Instances that the run normalised together."""
        names = [field.name for field in dataclasses.fields(Layout)]
        return Layout(**{name: self._facts["layout"][name] for name in names}).ghost_batch

    def states(self) -> Iterator[State]:
        """Sets the network to one state after the other; collective over the world."""
        for name in self._names:
            if name == INITIAL:
                checkpoint.restore(self._initial, variables.alike(self.made.model))
                yield State(name, 0, 0.0, None)
                continue
            step = self._restore(name)
            ended = epoch_event(self._folder / "metrics.jsonl", step) or {}
            yield State(name, step, step / self.steps_per_epoch, ended.get("val_top1"))

    def sample(self, sample_id: int) -> tuple[Image, int]:
        """A training image as it was decoded, and its label.

        Raises:
            CorruptRecord: naming file and place.
        """
        try:
            return self.source.decode(self.source.read(sample_id))
        except CorruptRecord as error:
            raise CorruptRecord(f"{self.source.where(sample_id)}: {error}") from None

    def deal(
        self,
        count: int,
        width: int,
        measure: Callable[[int], Sequence[float]],
        done: Callable[[int], object],
    ) -> npt.NDArray[np.float64]:
        """Measures one row after the other, rank r rows r, r + W, …; collective over the world.

        Args:
            count: of rows.
            width: numbers in a row.
            measure: number of a row → its numbers; by one rank, alone.
            done: is called with 1 for each row of this rank.

        Returns:
            [count, width], the same on every rank.
        """
        table, comm = np.zeros((count, width)), self.comm

        def mine() -> None:
            for row in range(comm.rank, count, comm.world_size):
                table[row] = measure(row)
                done(1)

        comm.together(mine)
        rows = np.arange(count)
        whole = comm.world.gather_all(table)
        found: npt.NDArray[np.float64] = whole[rows % comm.world_size, rows]
        return found

    def _start_from(self) -> None:
        """Sets the network to the weights of --init-from, where they are those of the beginning."""
        here, _ = experiment.start_from(self.made, self.info, self.comm)
        place = checkpoint.folder_of(self._folder)

        def of_run() -> str | None:
            found, _ = checkpoint.newest(place)
            return None if found is None else found.facts["config"]["model"]["init_from"]

        comm = self.comm
        there = comm.world.share_object(comm.together(of_run if comm.rank == 0 else lambda: None))
        if there not in (None, here):  # None: nothing was saved yet
            raise agreed(
                DataError(
                    f"the weights in {self.config.model.init_from} are not those that"
                    f" {self._folder} began with: their digest is {here}, the run's {there}; bring"
                    f" them back, or leave --checkpoint {INITIAL} out"
                )
            )

    def _restore(self, name: str) -> int:
        comm = self.comm
        place = checkpoint.folder_of(self._folder)
        mine = comm.together(lambda: checkpoint.choose(place, name) if comm.rank == 0 else None)
        found = checkpoint.share(mine, comm)
        assert found is not None  # rank 0 had one, or all ranks have raised
        comm.together(lambda: trained.restore(self.made, found))
        return found.step


def _config(folder: Path, data_dir: str | None) -> tuple[Config, dict[str, Any]]:
    config, facts = trained.read_config(folder)
    task = models.network(config.model.model).task
    if task != "classification":
        raise ConfigError(
            f"{folder} has learned the task {task}, not classes of images; `ba-dist analyze`"
            " compares gradients of images and their copies alone. What works here: `ba-dist plot"
            f" gradient-norm {folder}` (the gradient's norm at every step), `ba-dist plot curves"
            f" {folder}`, `ba-dist eval {folder}`"
        )
    data = config.data
    precise = config.run.precision if config.run.precision == "fp64" else "fp32"
    return dataclasses.replace(
        config,
        data=data if data_dir is None else dataclasses.replace(data, data_dir=data_dir),
        run=dataclasses.replace(config.run, precision=precise),
    ), facts


def _names(folder: Path, which: Sequence[str]) -> list[str]:
    """The states in order, without `all`; those that are not there are refused at once."""
    place = checkpoint.folder_of(folder)
    there = checkpoint.names(place)
    steps = [name for name in there if name != "best"]
    found: list[str] = []
    for name in which:
        known = name in ("newest", "best", INITIAL, ALL) or name.isdecimal()
        if not known:
            raise ConfigError(
                f"--checkpoint {name} is none of {INITIAL}, {ALL}, newest, best or a step; steps"
                f" that are there: {', '.join(steps) or 'none'}"
            )
        if name == ALL:
            found += [INITIAL, *steps]
        else:
            if name not in {INITIAL, *there} and not (name == "newest" and steps):
                checkpoint.choose(place, name)  # raises
            found.append(name)
    return list(dict.fromkeys(found))
