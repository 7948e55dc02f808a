"""World → groups, lanes and copies: where each instance of a step is computed.

    group(r) = r // R      lane(r) = r mod R      G = W / R      K = M / R      b = B / G
    lane l, local copy k  →  copy m = l·K + k

B (distinct samples per step) and M (copies of each) say what is computed; W and R only say where.
Source: "Augment Your Batch", section 4.5 (there R = M, K = 1).
"""

import math
from dataclasses import InitVar, dataclass
from typing import NoReturn

from ba_dist.errors import LayoutError


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """N // B: the last partial batch is dropped, and M does not matter."""
    return num_samples // batch_size


@dataclass(frozen=True)
class Layout:
    """Who computes what in a step; every rule is checked when it is made.

    Args:
        world_size: W, the number of ranks.
        multiplicity: M, augmented copies of each sample.
        batch_size: B, distinct samples per step over all groups.
        group_size: R, the consecutive ranks that share a batch; default gcd(M, W).
        ghost_batch_size: instances that are normalised together, where a group has as many samples.
        microbatch: instances that go through the network at once; default all of a rank's.
        samples: training samples, where the number is known; a batch may not have more.

    Raises:
        LayoutError: naming the numbers that do not fit, and values that fit all the others.
    """

    world_size: int
    multiplicity: int
    batch_size: int
    group_size: int = 0
    ghost_batch_size: int = 32
    microbatch: int = 0
    samples: InitVar[int] = 0

    def __post_init__(self, samples: int) -> None:
        for name in ("world_size", "multiplicity", "batch_size", "ghost_batch_size"):
            if getattr(self, name) < 1:
                raise LayoutError(f"{_flag(name)} is {getattr(self, name)}; it must be at least 1")
        if self.group_size == 0:
            object.__setattr__(self, "group_size", math.gcd(self.multiplicity, self.world_size))
        self._check_group_size(samples)
        self._check_batch_size(samples)
        if 0 < samples < self.batch_size:
            self._refuse_batch(samples)
        if self.microbatch == 0:
            object.__setattr__(self, "microbatch", self.instances_per_rank)
        self._check_microbatch()

    @property
    def groups(self) -> int:
        """G = W / R."""
        return self.world_size // self.group_size

    @property
    def copies_per_rank(self) -> int:
        """K = M / R."""
        return self.multiplicity // self.group_size

    @property
    def group_batch(self) -> int:
        """b = B / G, the samples that a group holds."""
        return self.batch_size // self.groups

    @property
    def instances_per_rank(self) -> int:
        """b·K, what one rank trains on in a step."""
        return self.group_batch * self.copies_per_rank

    @property
    def ghost_batch(self) -> int:
        """Instances normalised together: the ghost batch size, or b where b is below it."""
        return min(self.ghost_batch_size, self.group_batch)

    @property
    def microbatches(self) -> int:
        """How many microbatches a rank's instances are cut into."""
        return self.instances_per_rank // self.microbatch

    def group(self, rank: int) -> int:
        """The group of a rank."""
        return rank // self.group_size

    def lane(self, rank: int) -> int:
        """The position of a rank in its group."""
        return rank % self.group_size

    def copies(self, rank: int) -> range:
        """The copy indices m that a rank computes."""
        first = self.lane(rank) * self.copies_per_rank
        return range(first, first + self.copies_per_rank)

    def rows(self, rank: int) -> list[int]:
        """Where the instances of a rank are among all B·M of a step, copy by copy.

        Instance k·b + s of the rank is copy l·K + k of the sample at g·b + s of the batch, which is
        row (l·K + k)·B + g·b + s.
        """
        first = self.group(rank) * self.group_batch
        return [
            copy * self.batch_size + first + sample
            for copy in self.copies(rank)
            for sample in range(self.group_batch)
        ]

    def microbatch_within(self, limit: int) -> int:
        """The largest microbatch of at most `limit` instances, or of one ghost batch."""
        valid = microbatches(self.instances_per_rank, self.ghost_batch)
        return max([size for size in valid if size <= limit], default=self.ghost_batch)

    def notice(self) -> str | None:
        """A note for the user where the layout makes ghost batches smaller; None elsewhere."""
        if self.group_batch >= self.ghost_batch_size:
            return None
        return (
            f"ghost batches hold {self.ghost_batch} instances, not {self.ghost_batch_size}: a group"
            f" has only B / G = {self.batch_size} / {self.groups} = {self.group_batch} samples. On"
            f" fewer groups, or with --ghost-batch-size {self.ghost_batch}, the numbers differ."
        )

    def _works(self, **changed: int) -> bool:
        """Whether the layout with some other values passes every check."""
        names = ("world_size", "multiplicity", "batch_size", "group_size", "ghost_batch_size")
        values = {name: getattr(self, name) for name in (*names, "microbatch")}
        try:
            Layout(**{**values, **changed})
        except LayoutError:
            return False
        return True

    def _check_group_size(self, samples: int) -> None:
        world, copies, size = self.world_size, self.multiplicity, self.group_size
        if size >= 1 and world % size == 0 and copies % size == 0:
            return
        valid = group_sizes(world, copies)
        if works := [size for size in valid if self._works(group_size=size, samples=samples)]:
            advice = f"--group-size values that work: {_join(works)}"
        else:
            advice = f"with --group-size {valid[-1]}, {self._batch_sizes(valid[-1], samples)}"
        raise LayoutError(
            f"--group-size {size} must divide both the number of ranks ({world}) and"
            f" --multiplicity ({copies}); {advice}"
        )

    def _batch_sizes(self, group_size: int, samples: int) -> str:
        """Advice: the nearest batch sizes that work with all else.

        Where the number of samples is not known yet, the list begins with the smallest: otherwise
        all of it might be more than there are.
        """
        groups = self.world_size // group_size
        most = min(self.batch_size, samples) if samples else self.batch_size
        near = batch_sizes_near(most, groups, self.ghost_batch_size)
        near = [size for size in near if not samples or size <= samples]
        limit = "" if samples else " (up to the number of training samples)"
        for without, microbatch in (("", self.microbatch), ("without --microbatch, ", 0)):
            changed = {"group_size": group_size, "microbatch": microbatch}
            if works := [size for size in near if self._works(batch_size=size, **changed)]:
                if not samples:
                    works = [*self._smaller(works[0], groups, changed), *works]
                return f"{without}--batch-size values that work{limit}: {_join(works)}"
        return "use fewer ranks: each group needs a sample"

    def _smaller(self, size: int, groups: int, changed: dict[str, int]) -> list[int]:
        """Batch sizes that work and are below one that does: the smallest, and twice it, ..."""

        def works(part: int) -> bool:
            whole = groups * part
            return fits(whole, groups, self.ghost_batch_size) and self._works(
                batch_size=whole, **changed
            )

        part = next(filter(works, range(1, size // groups + 1)))
        parts = [part << i for i in range((size // (groups * part)).bit_length())]
        return [groups * part for part in parts if groups * part < size and works(part)]

    def _check_batch_size(self, samples: int) -> None:
        if fits(self.batch_size, self.groups, self.ghost_batch_size):
            return
        if self.batch_size % self.groups:
            reason = (
                f"must divide by the number of groups, {self.groups}"
                f" ({self.world_size} ranks in groups of {self.group_size})"
            )
        else:
            reason = (
                f"gives each of {self.groups} group(s) {self.batch_size // self.groups} samples,"
                f" which must divide by --ghost-batch-size {self.ghost_batch_size}"
            )
        advice = self._batch_sizes(self.group_size, samples)
        raise LayoutError(f"--batch-size {self.batch_size} {reason}; {advice}")

    def _refuse_batch(self, samples: int) -> NoReturn:
        """Raises LayoutError where a batch has more samples than there are, with the largest."""
        found = f"--batch-size {self.batch_size} is more than the {samples} training samples"
        sizes = [self.groups * part for part in range(samples // self.groups, 0, -1)]
        for without, microbatch in (("", self.microbatch), ("without --microbatch, ", 0)):
            for size in sizes:
                if self._works(batch_size=size, microbatch=microbatch):
                    raise LayoutError(
                        f"{found}; {without}the largest that works is --batch-size {size}"
                    )
        raise LayoutError(f"{found}, too few for {self.groups} groups; use fewer ranks")

    def _check_microbatch(self) -> None:
        size, whole, ghost = self.microbatch, self.instances_per_rank, self.ghost_batch
        if size < 1 or whole % size or size % ghost:
            raise LayoutError(
                f"--microbatch {size} must divide a rank's {whole} instances and hold whole ghost"
                f" batches of {ghost}; --microbatch values that work:"
                f" {_join(microbatches(whole, ghost))}"
            )


def group_sizes(world_size: int, multiplicity: int) -> list[int]:
    """Every R that divides both W and M."""
    return _divisors(math.gcd(world_size, multiplicity))


def microbatches(instances: int, ghost_batch: int) -> list[int]:
    """Every microbatch that divides a rank's instances and holds whole ghost batches."""
    return [ghost_batch * d for d in _divisors(instances // ghost_batch)]


def fits(batch_size: int, groups: int, ghost_batch_size: int) -> bool:
    """Whether B can be cut into G equal parts that hold whole ghost batches."""
    if batch_size < groups or batch_size % groups:
        return False
    samples = batch_size // groups
    return samples <= ghost_batch_size or samples % ghost_batch_size == 0


def batch_sizes_near(
    batch_size: int, groups: int, ghost_batch_size: int, count: int = 3
) -> list[int]:
    """The valid batch sizes nearest to one that is not valid: up to `count` below and above it."""
    # For a ghost batch size g a group may hold 1, 2, … g, 2g, 3g, … samples; `position` is the
    # position in this list.
    samples = batch_size // groups
    position = min(samples, ghost_batch_size) + max(0, samples // ghost_batch_size - 1)
    return [
        groups * (i if i <= ghost_batch_size else (i - ghost_batch_size + 1) * ghost_batch_size)
        for i in range(max(1, position - count + 1), position + count + 1)
    ]


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _flag(name: str) -> str:
    return "the number of ranks" if name == "world_size" else "--" + name.replace("_", "-")


def _join(values: list[int]) -> str:
    return ", ".join(map(str, values))
