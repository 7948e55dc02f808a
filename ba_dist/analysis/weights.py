"""Whether all ranks had the same weights whenever they took a digest of them."""

from collections import Counter
from collections.abc import Iterator

from ba_dist.analysis.rules import Rules
from ba_dist.analysis.trace import Weights

_NAMED = 8  # ranks in a message


class WeightsChecker:
    """Compares the digests of the weights of all ranks; keeps only those of the current step.

    Args:
        rules: of the run.
    """

    def __init__(self, rules: Rules):
        self._rules = rules
        self._pending: dict[int, dict[int, set[str]]] = {}
        self._last: int | None = None

    def check(self, step: int, found: list[tuple[int, Weights]]) -> Iterator[str]:
        """What is wrong with the digests before a step."""
        for rank, weights in found:
            of_rank = self._pending.setdefault(weights.after, {}).setdefault(rank, set())
            of_rank.add(weights.sha256)
        for after in sorted(n for n in self._pending if n <= step):
            for problem in self._judge(after, self._pending.pop(after)):
                yield f"weights after {after} steps: {problem}"

    def finish(self, steps: int) -> Iterator[str]:
        """What is wrong at the end of the trace."""
        if self._last is None:
            yield "no digest of the weights in the trace: nothing tells whether all ranks agreed"
        elif steps - self._last > self._rules.steps_per_epoch:
            yield f"weights after {self._last} steps: the last digest, of a trace of {steps} steps"

    def _judge(self, after: int, digests: dict[int, set[str]]) -> Iterator[str]:
        if self._last is None and after > 0:
            yield "the first digest; that of the start is missing"
        elif after - (self._last or 0) > self._rules.steps_per_epoch:
            yield f"the digest before is that after {self._last} steps, more than an epoch ago"
        self._last = max(after, self._last or 0)
        # Where a job continues a run, the ranks of both jobs have written the digest.
        ranks = max(self._rules.world_size(step) for step in (max(0, after - 1), after))
        if lacking := [rank for rank in range(ranks) if rank not in digests]:
            yield f"{_named(lacking)} of {ranks} wrote no digest"
        if several := [rank for rank, values in sorted(digests.items()) if len(values) > 1]:
            yield f"{_named(several)} wrote two digests that differ"
        common = Counter(min(values) for values in digests.values()).most_common(1)[0][0]
        if others := [rank for rank, values in sorted(digests.items()) if min(values) != common]:
            yield f"{_named(others)} of {ranks} differ from most ranks, whose digest is {common}"


def _named(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:_NAMED]))
    more = f" and {len(ranks) - _NAMED} more" if len(ranks) > _NAMED else ""
    return f"rank{'s' * (len(ranks) > 1)} {shown}{more}"
