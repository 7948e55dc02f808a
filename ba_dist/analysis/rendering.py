"""Renders instances of a run again from source and key, and compares digests of their pixels."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ba_dist import runtime
from ba_dist.analysis.rules import Expected, Ids, Rules
from ba_dist.analysis.trace import Entry
from ba_dist.config import Data
from ba_dist.data.batch import InstanceMaker, make
from ba_dist.data.catalog import open_source
from ba_dist.data.group.group_reader import GroupBatch
from ba_dist.data.sources import Source
from ba_dist.errors import DataError, UserError
from ba_dist.run.trace import row_digest


def source_of(config: Data) -> Source:
    """The training samples of a run, opened here.

    Raises:
        UserError: with the reason why not, and what can be checked without them.
    """
    try:
        return open_source(config, "train")
    except (UserError, OSError) as error:
        raise UserError(
            f"the data of the run cannot be opened here: {error}\n"
            "Bring it here, or use --no-render, which checks everything but the pixels"
        ) from None


class Renderer:
    """Renders ghost batches that are spread over the run; whole ones, for mixup and CutMix.

    For each of them the whole batch of its group is read, and the digest of its labels and decoded
    images is compared, so that a trace whose ids belong to other images or labels is found.

    Args:
        rules: of the run.
        task: of the run, which makes instances.
        source: the run's training samples.
        steps: number of steps in the trace.
        wanted: number of ghost batches to render; all, if the run has no more.
    """

    def __init__(self, rules: Rules, task: InstanceMaker, source: Source, steps: int, wanted: int):
        self._rules, self._task, self._source = rules, task, source
        self._chosen: dict[int, list[int]] = defaultdict(list)
        layout = rules.layout(0)
        parts = layout.batch_size * layout.multiplicity // layout.ghost_batch
        for number in spread(steps * parts, wanted, rules.seed):
            self._chosen[number // parts].append(number % parts)
        self.rendered = 0

    def check(
        self, step: int, entries: list[Entry | None], wanted: list[Expected]
    ) -> Iterator[str]:
        """Checks one step of all ranks; `wanted` is what each rank should have trained on."""
        layout = self._rules.layout(step)
        batches: dict[int, GroupBatch] = {}
        for part in self._chosen.get(step, []):
            ghosts = layout.instances_per_rank // layout.ghost_batch
            rank, ghost = divmod(part % (layout.world_size * ghosts), ghosts)
            entry, group = entries[rank], layout.group(rank)
            if entry is None or len(entry["instance_sha256"]) != layout.instances_per_rank:
                continue  # another check reports it
            try:
                if group not in batches:
                    samples = wanted[rank].sample_ids[: layout.group_batch]
                    batches[group] = self._read(step, samples)
                    if batches[group].sha256() != entry["batch_sha256"]:
                        yield (
                            f"step {step}, rank {rank}: the labels or the decoded images of its"
                            " batch are not those of its samples in the data"
                        )
                first = ghost * layout.ghost_batch
                chosen = slice(first, first + layout.ghost_batch)
                for problem in self._compare(batches[group], wanted[rank], chosen, entry):
                    yield f"step {step}, rank {rank}: {problem}"
            except (DataError, OSError) as error:
                yield f"step {step}, rank {rank}: its batch cannot be read here: {error}"

    def _compare(
        self, batch: GroupBatch, wanted: Expected, chosen: slice, entry: Entry
    ) -> Iterator[str]:
        rendered = self._render(batch, wanted, chosen)
        self.rendered += len(rendered)
        pairs = zip(rendered, entry["instance_sha256"][chosen], strict=True)
        if wrong := [i for i, (a, b) in enumerate(pairs, chosen.start) if a != b]:
            copy, sample = wanted.copies[wrong[0]], wanted.sample_ids[wrong[0]]
            yield (
                f"{len(wrong)} of {len(rendered)} instances rendered anew have other pixels, first"
                f" instance {wrong[0]}, copy {copy} of sample {sample}"
            )

    def _read(self, step: int, samples: Ids) -> GroupBatch:
        pairs = [self._source.decode(self._source.read(int(sample))) for sample in samples]
        images, labels = zip(*pairs, strict=True)
        epoch = step // self._rules.steps_per_epoch
        return GroupBatch(step, epoch, samples, list(images), np.array(labels, np.int64))

    def _render(self, batch: GroupBatch, wanted: Expected, chosen: slice) -> list[str]:
        """The digests of the pixels of a ghost batch, as the trace has them."""
        runtime.quiet()
        positions = np.arange(len(wanted.keys))[chosen] % len(batch.samples)
        samples = [batch.samples[position] for position in positions]
        keys = wanted.keys[chosen]
        made = make(self._task, samples, batch.labels[positions], keys, ghost_batch=len(keys))
        return [row_digest(row) for row in made[self._task.augmented].numpy()]


def spread(total: int, wanted: int, seed: int) -> list[int]:
    """One random number of each of `wanted` equal parts of 0 … total-1; all if there are no more.

    The numbers depend on the seed alone, so that a second audit checks the same.
    """
    edges = [total * i // wanted for i in range(wanted + 1)]
    drawn: npt.NDArray[np.float64] = np.random.default_rng(seed).random(wanted)
    parts = zip(edges[:-1], edges[1:], drawn.tolist(), strict=True)
    return [low + int(share * (high - low)) for low, high, share in parts if low < high]
