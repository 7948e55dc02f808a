"""Traces of the real input of a run, rank after rank in one process, and of inputs that are broken.

Nothing is trained. What breaks an input breaks what makes it, so that the trace says what such a
program would say.
"""

import hashlib
import json
from dataclasses import asdict, replace

import numpy as np

from ba_dist.comm import start
from ba_dist.config import layout_of, override, plan_steps
from ba_dist.data.augment import Augmentation
from ba_dist.data.catalog import Dataset, open_source
from ba_dist.data.group.group_reader import GroupReader
from ba_dist.data.group.record_exchange import ReadMode
from ba_dist.data.pipeline import InputPipeline
from ba_dist.errors import CorruptRecord
from ba_dist.recipes import recipe
from ba_dist.recipes.quickstart import on_digits
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import GroupSampler
from ba_dist.run import record, trace
from ba_dist.tasks.classification import Classification

RANKS, STEPS = 2, 6
# Two groups of 16 samples, five steps an epoch, two copies on each of two ranks.
SMALL = {"batch_size": 32, "multiplicity": 4, "ghost_batch_size": 8, "train_samples": 170}


def small(**changes):
    """Digits, augmented as in a first run."""
    return override(on_digits(recipe("quickstart")), {**SMALL, **changes})


def produce(folder, config, ranks=RANKS, steps=STEPS, augmentation=None, source=None, reader=None):
    """A run directory with the trace of every rank.

    Args:
        folder: to write to.
        config: of the run.
        ranks: how many.
        steps: how many.
        augmentation: (rank, config, info) → what makes the copies, if not what the run says.
        source: of the run's source, makes the one that is read.
        reader: of a rank's reader, makes the one that gives the batches.
    """
    layout = layout_of(config, ranks)
    data = open_source(config.data, "train")
    per_epoch = plan_steps(config, len(data), ranks).steps_per_epoch
    facts = record.facts(
        config,
        Dataset(data, data, data.info, "here"),
        [[0, asdict(layout)]],
        steps_per_epoch=per_epoch,
        hosts=[],
    )
    (folder / "trace").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(facts))
    read = source(data) if source else data
    for rank in range(ranks):
        make = augmentation or (lambda rank, config, info: as_it_should_be(config, info))
        lines = _rank(config, layout, rank, steps, make(rank, config, data.info), read, reader)
        with trace.path_of(folder, rank).open("w") as file:
            for number, line in enumerate(lines):
                if number % per_epoch == 0 or number == steps:
                    file.write(json.dumps(weights(number)) + "\n")
                file.write(json.dumps(line) + "\n" if line else "")
    return folder


def as_it_should_be(config, info, kind=Augmentation):
    return kind(config.augment, info, config.data.image_size)


def weights(after, rank=0):
    """The line that training writes: the digest of weights that differ by `rank`."""
    digest = hashlib.sha256(f"{after} {rank}".encode()).hexdigest()
    return {"weights_after": after, "sha256": digest}


def _rank(config, layout, rank, steps, augmentation, source, change):
    """The entries of one rank, and None at the end. Every rank reads for itself."""
    seed, group = config.run.seed, layout.group(rank)
    sampler = GroupSampler(len(source), seed, layout, group)
    alone = start().group(Layout(1, 1, 1))
    mode = ReadMode("replicate", skip=True)
    reader = GroupReader(source, sampler, alone, mode, first=0, last=steps)
    task = Classification(augmentation, config.optimizer.label_smoothing)
    batches = InputPipeline(
        change(reader) if change else reader,
        task,
        layout,
        rank=rank,
        seed=seed,
        traced=True,
    )
    for batch in batches:
        yield trace.entry(batch, task, group, layout.lane(rank))
    batches.close()
    yield None


# --- broken augmentations -------------------------------------------------------------------------


class Off(Augmentation):
    """Shows the plain image, whatever was drawn."""

    def render(self, image_HWC, parameters, i, out_HWC):
        self.plain(image_HWC, out_HWC)

    def finish(self, images_nHWC, parameters):
        return super().finish(images_nHWC, {})


class SameCopies(Augmentation):
    """Draws from the place in the batch, which is the same for all copies."""

    def draw(self, keys, sizes, ghost_batch):
        return super().draw(np.arange(len(keys), dtype=np.uint64) % 16, sizes, ghost_batch)


class OtherKeys(Augmentation):
    def draw(self, keys, sizes, ghost_batch):
        return super().draw(keys ^ np.uint64(1), sizes, ghost_batch)


class CopiesTurned(Augmentation):
    """A rank's two copies, the second first."""

    def draw(self, keys, sizes, ghost_batch):
        return super().draw(np.roll(keys, len(keys) // 2), sizes, ghost_batch)


class NoFlip(Augmentation):
    """Forgets one of several augmentations."""

    def render(self, image_HWC, parameters, i, out_HWC):
        super().render(image_HWC, {**parameters, "flip": np.zeros(i + 1)}, i, out_HWC)


class Neighbours(Augmentation):
    """Shows the image of the instance before."""

    before = None

    def render(self, image_HWC, parameters, i, out_HWC):
        shown, self.before = self.before, image_HWC
        super().render(image_HWC if shown is None else shown, parameters, i, out_HWC)


class PartnersFromAnywhere(Augmentation):
    """Mixes an instance with any of its rank, not only of its ghost batch."""

    def draw(self, keys, sizes, ghost_batch):
        return super().draw(keys, sizes, len(keys))


class OtherColours(Augmentation):
    """Normalises by another mean."""

    def __init__(self, config, info, image_size=None):
        super().__init__(config, replace(info, mean=tuple(m + 0.01 for m in info.mean)), image_size)


class LateStart(Augmentation):
    """Augments from the third step on."""

    rendered = 0

    def render(self, image_HWC, parameters, i, out_HWC):
        self.rendered += 1
        if self.rendered <= 2 * 64:
            self.plain(image_HWC, out_HWC)
        else:
            super().render(image_HWC, parameters, i, out_HWC)


# --- broken reading -------------------------------------------------------------------------------


class Changed:
    """A source, or a reader, that is like another one but for what a subclass changes."""

    def __init__(self, original):
        self.original = original

    def __getattr__(self, name):
        return getattr(self.original, name)

    def __len__(self):
        return len(self.original)


class OtherSamples(Changed):
    def read(self, sample_id):
        return self.original.read((sample_id + 1) % len(self))


class Corrupt(Changed):
    """Some samples cannot be read."""

    def __init__(self, original, corrupt):
        super().__init__(original)
        self.corrupt = corrupt

    def read(self, sample_id):
        if sample_id in self.corrupt:
            raise CorruptRecord("corrupt")
        return self.original.read(sample_id)


class OtherLabels(Changed):
    def decode(self, record, *allocate):
        image, label = self.original.decode(record, *allocate)
        return image, (label + 1) % self.info.classes


class OnePixel(Changed):
    """Other content under the same names and sizes: one pixel of every image is lighter."""

    def decode(self, record, *allocate):
        image, label = self.original.decode(record, *allocate)
        image[0, 0] ^= 1
        return image, label


class Stale(Changed):
    """Gives the images and labels of the step before, under the ids of this one."""

    def __iter__(self):
        before = None
        for batch in self.original:
            last = before or batch
            images = [image.copy() for image in batch.samples]
            yield replace(batch, samples=last.samples, labels=last.labels)
            before = replace(batch, samples=images)
