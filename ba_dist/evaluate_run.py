"""Evaluates a finished or stopped run, on any number of ranks."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ba_dist import experiment, runtime, trained
from ba_dist.comm import Comm, start
from ba_dist.data.catalog import open_dataset
from ba_dist.errors import ConfigError
from ba_dist.evaluate import Answers
from ba_dist.health import devices
from ba_dist.rules.confusion import Counts, confusion, per_class
from ba_dist.run import checkpoint
from ba_dist.tasks import Task
from ba_dist.tasks.translation import Translation
from ba_dist.translate import Bleu, measure_bleu


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
    """

    step: int
    metrics: dict[str, float]
    task: Task
    samples: int
    class_names: tuple[str, ...]
    counts: Counts | None
    bleu: Bleu | None = None

    def line(self) -> str:
        """The metrics for a person."""
        forms = {name: ".2%" if "%" in f else ".4f" for name, f in self.task.validation.items()}
        order = sorted(self.metrics, key=lambda name: name != self.task.judged_by)
        shown = [f"{name} {self.metrics[name]:{forms[name]}}" for name in order]
        return "  ".join([f"step {self.step}", *shown])

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
) -> Result:
    """Evaluates a checkpoint of a run on its validation samples; collective over the world.

    Args:
        folder: of the run.
        which: checkpoint: `newest`, `best`, or the number of a step.
        data_dir: where the data is now; None for where it was in training.
        classes: whether to count which classes were answered for which.
        bleu_pairs: sentence pairs that BLEU is measured on; None for all, 0 for none.

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
    comm.together(lambda: runtime.prepare(comm.node.rank, comm.node.size))
    devices.check(comm)
    dataset = open_dataset(config.data, comm)
    comm.together(
        lambda: dataset.info.check_fits(trained.read_info(folder, config, facts).vocabulary_digest)
    )
    made = comm.together(lambda: trained.network(config, facts, dataset.info))
    comm.together(lambda: trained.restore(made, found))
    if classes and "classes" not in made.task.facts:
        raise ConfigError(f"{folder} has learned something else than classes")
    if bleu_pairs and not isinstance(made.task, Translation):
        raise ConfigError(f"{folder} has learned something else than translation: no --bleu-pairs")
    with experiment.evaluator(made, dataset.validation, comm) as evaluate:
        kept = Answers()
        metrics = evaluate(answers=kept if classes else None)
    assert metrics is not None  # nobody asks it to stop
    return Result(
        found.step,
        metrics,
        made.task,
        len(dataset.validation),
        trained.class_names(facts),
        confusion(kept.gather(comm), made.task.facts["classes"]) if classes else None,
        _bleu(made, dataset.validation, bleu_pairs, comm),
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
