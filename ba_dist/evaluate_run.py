"""Evaluates a finished or stopped run, on any number of ranks."""

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tqdm import tqdm

from ba_dist import experiment, runtime, trained
from ba_dist.comm import Comm, start
from ba_dist.data.catalog import open_dataset
from ba_dist.errors import ConfigError, CorruptRecord, agreed
from ba_dist.evaluate import Answers, Augmented, Evaluator, Scores
from ba_dist.health import devices
from ba_dist.rules.comparison import Comparison, compare, comparison_table
from ba_dist.rules.confusion import Counts, confusion, per_class
from ba_dist.rules.mean_answer import Average
from ba_dist.run import checkpoint
from ba_dist.tasks import Task
from ba_dist.tasks.translation import Translation
from ba_dist.translate import Bleu, measure_bleu


@dataclass(frozen=True)
class Tta:
    """How good the mean answer over augmented copies of each sample is.

    Args:
        copies: n, of each sample.
        average: what was averaged over them.
        metrics: of the mean answers.
        compared: with the answers to the plain samples, for every metric that is a share.
    """

    copies: int
    average: Average
    metrics: Mapping[str, float]
    compared: Mapping[str, Comparison]

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        compared = {name: found.as_dict() for name, found in self.compared.items()}
        return {
            "copies": self.copies,
            "average": self.average,
            **self.metrics,
            "compared": compared,
        }


@dataclass(frozen=True)
class Result:
    """How good the network of a run is.

    Args:
        step: of the checkpoint.
        metrics: over all validation samples.
        task: what was learned.
        samples: that the dataset has for evaluation.
        class_names: in order of the labels; empty where they are not known.
        counts: int64 [classes, classes], rows by label, columns by answer, where they were asked
            for.
        bleu: of a network that translates.
        tta: what augmented copies give, where they were asked for.
    """

    step: int
    metrics: dict[str, float]
    task: Task
    samples: int
    class_names: tuple[str, ...]
    counts: Counts | None
    bleu: Bleu | None = None
    tta: Tta | None = None

    def line(self) -> str:
        """The metrics for a person."""
        return f"step {self.step}  {self._shown(self.metrics)}"

    def tta_lines(self) -> str:
        """What augmented copies give, for a person; empty where they were not asked for."""
        if self.tta is None:
            return ""
        what = f"mean {self.tta.average} of {self.tta.copies} augmented copies of each sample"
        return f"{what}:  {self._shown(self.tta.metrics)}\n{comparison_table(self.tta.compared)}"

    def _shown(self, metrics: Mapping[str, float]) -> str:
        forms = {name: ".2%" if "%" in f else ".4f" for name, f in self.task.validation.items()}
        order = sorted(metrics, key=lambda name: name != self.task.judged_by)
        return "  ".join(f"{name} {metrics[name]:{forms[name]}}" for name in order)

    def bleu_line(self) -> str:
        """BLEU for a person, with what copying the source would get; empty where there is none."""
        if self.bleu is None:
            return ""
        return (
            f"BLEU {self.bleu.score:.2f} on {self.bleu.pairs} pairs (copying the source:"
            f" {self.bleu.copied:.2f})  {self.bleu.signature}"
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        found: dict[str, Any] = {"step": self.step, "samples": self.samples, **self.metrics}
        if self.counts is not None:
            found["per_class"] = per_class(self.counts, self.class_names)
            found["confusion"] = self.counts.tolist()
        if self.tta is not None:
            found["tta"] = self.tta.as_dict()
        if self.bleu is not None:
            found |= {
                "bleu": self.bleu.score,
                "bleu_of_copying": self.bleu.copied,
                "bleu_pairs": self.bleu.pairs,
                "bleu_signature": self.bleu.signature,
            }
        return found


def evaluate_run(
    folder: Path,
    which: str = "newest",
    data_dir: str | None = None,
    *,
    classes: bool = False,
    bleu_pairs: int | None = None,
    tta: int | None = None,
    tta_average: Average = "probabilities",
) -> Result:
    """Evaluates a checkpoint of a run on its validation samples; collective over the world.

    Args:
        folder: of the run.
        which: checkpoint: `newest`, `best`, or the number of a step.
        data_dir: where the data is now; None for where it was in training.
        classes: whether to count which classes were answered for which.
        bleu_pairs: sentence pairs that BLEU is measured on; None for all, 0 for none.
        tta: augmented copies of each sample, whose answers are averaged; None for none.
        tta_average: what is averaged over them: `probabilities` or `logits`.

    Raises:
        UserError: on all ranks.
    """
    comm = start()
    config, facts = comm.together(lambda: trained.read_config(folder))
    if data_dir is not None:
        config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, data_dir=data_dir)
        )
    place = checkpoint.folder_of(folder)
    mine = comm.together(lambda: checkpoint.choose(place, which) if comm.rank == 0 else None)
    found = checkpoint.share(mine, comm)
    assert found is not None  # rank 0 had one, or all ranks have raised
    comm.together(lambda: runtime.prepare(comm.node.rank, comm.node.size, comm.cores))
    devices.check(comm)
    dataset = open_dataset(config.data, comm)
    comm.together(
        lambda: dataset.info.check_fits(trained.read_info(folder, config, facts).vocabulary_digest)
    )
    made = comm.together(lambda: trained.network(config, facts, dataset.info))
    comm.together(lambda: trained.restore(made, found))
    if classes and "classes" not in made.task.facts:
        raise ConfigError(
            f"{folder} has learned something else than classes: none is taken for another."
            f" `ba-dist eval {folder}` without --per-class and `ba-dist plot curves {folder}` tell"
            " how good it is"
        )
    if bleu_pairs and not isinstance(made.task, Translation):
        raise ConfigError(f"{folder} has learned something else than translation: no --bleu-pairs")
    if tta is not None:
        _check_tta(folder, made.task, tta, tta_average)
    with experiment.evaluator(made, dataset.validation, comm) as evaluate:
        kept, scores = Answers(), Scores(made.task)
        metrics = evaluate(answers=kept if classes else None, kept=scores if tta else None)
        averaged = None
        if tta is not None:
            copies = experiment.unmixed(made.config, dataset.info)
            augmented = Augmented(copies, config.run.seed, tta, tta_average)
            found_tta = _augmented(evaluate, augmented, len(dataset.validation), comm)
            averaged = _tta(made.task, augmented, scores, found_tta, comm)
    assert metrics is not None  # nobody asks it to stop
    return Result(
        found.step,
        metrics,
        made.task,
        len(dataset.validation),
        trained.class_names(facts),
        confusion(kept.gather(comm), made.task.facts["classes"]) if classes else None,
        _bleu(made, dataset.validation, bleu_pairs, comm),
        averaged,
    )


def _check_tta(folder: Path, task: Task, copies: int, average: str) -> None:
    """Refuses what cannot be averaged, on all ranks alike."""
    if copies < 1 or average not in get_args(Average):
        raise ConfigError(
            f"tta={copies!r} and tta_average={average!r}: expected 1 copy or more, and one of"
            f" {', '.join(get_args(Average))}"
        )
    if "classes" not in task.facts:
        raise ConfigError(
            f"{folder} has learned something else than classes: no input of it is augmented; leave"
            " --tta out"
        )


def _augmented(evaluate: Evaluator, augmented: Augmented, samples: int, comm: Comm) -> Scores:
    """This rank's scores of mean answers, with a bar on the terminal of the first rank."""
    mine = len(range(comm.rank, samples, comm.world_size)) * augmented.copies
    shape, key = np.full((1, 3), 256, np.int64), np.zeros(1, np.uint64)
    if comm.rank == 0 and not augmented.maker.draw(key, shape, 1):
        print("note: this recipe augments no image; all copies are the same", file=sys.stderr)
    hidden = True if comm.rank else None  # None: shown on a terminal only
    with tqdm(total=mine, desc="augmented", unit="copy", disable=hidden, leave=False) as bar:
        return evaluate.augmented(augmented, bar.update)


def _tta(task: Task, augmented: Augmented, plain: Scores, mean: Scores, comm: Comm) -> Tta:
    """Mean answers compared with those to the plain samples; collective over the world.

    Everything is summed in order of the samples: the same on any number of ranks.
    """
    (ids, single), (others, averaged) = (part.gather(comm, plain.names) for part in (plain, mean))
    if not np.array_equal(ids, others):
        raise agreed(CorruptRecord("a sample could be read only once: some storage is failing"))
    ratios = {name: math.fsum(p[:, 0]) / math.fsum(p[:, 1]) for name, p in averaged.items()}
    hits = [name for name, form in task.validation.items() if "%" in form]
    return Tta(
        augmented.copies,
        augmented.average,
        task.results(ratios),
        {name: compare(single[name][:, 0] > 0, averaged[name][:, 0] > 0) for name in hits},
    )


def _bleu(made: experiment.Experiment, source: Any, wanted: int | None, comm: Comm) -> Bleu | None:
    """BLEU of a network that translates, with a bar on the terminal of the first rank."""
    if not isinstance(made.task, Translation) or wanted == 0:
        return None
    pairs = min(wanted or source.pairs, source.pairs)
    hidden = True if comm.rank else None  # None: shown on a terminal only
    with tqdm(total=pairs, desc="translating", unit="pair", disable=hidden, leave=False) as bar:
        # The others have come about as far as this rank.
        return measure_bleu(
            made.model, source, pairs, comm, lambda done: bar.update(done * comm.world_size)
        )
