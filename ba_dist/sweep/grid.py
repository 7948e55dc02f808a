"""The points of a sweep: every combination of the values that were given."""

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ba_dist.config import Config, layout_of, options, to_dict
from ba_dist.errors import LayoutError

_LETTERS = 120  # that the name of a run may have
_HEX = 10  # of the digest of one that would be longer, or has letters that no folder should have


@dataclass(frozen=True)
class Point:
    """One combination.

    Args:
        values: flat name → value, of what differs in the sweep.
        config: of its run, without a run directory.
        run: the name of its run, a folder of the sweep; points that compute the same share one.
    """

    values: Mapping[str, Any]
    config: Config
    run: str


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values; the last axis changes first.

    Args:
        axes: flat name → its values; a value that is there twice counts once.
    """
    lists = [list(dict.fromkeys(values)) for values in axes.values()]
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*lists)]


def points(values: Sequence[Mapping[str, Any]], configs: Sequence[Config]) -> list[Point]:
    """The points of a sweep; those of equal settings, whatever they are called, share one run.

    So the baselines of M = 1, which are all the same, are trained once.

    Args:
        values: of each combination.
        configs: of each, in the same order.
    """
    runs: dict[str, str] = {}
    found = []
    for mine, config in zip(values, configs, strict=True):
        settings = {name: part for name, part in to_dict(config).items() if name != "baseline"}
        key = json.dumps(settings, sort_keys=True)
        run = runs.setdefault(key, run_name(mine))
        found.append(Point(mine, config, run))
    return found


def ranks_within(config: Config, most: int) -> int:
    """The most ranks, up to a limit, that a run can be divided among without smaller ghost batches.

    Where it runs changes nothing that is computed, but for ghost batches: a group with fewer
    samples than one has to make them smaller.

    Args:
        config: of the run.
        most: the limit.

    Raises:
        LayoutError: when it cannot be laid out on any number, with what would work on that many.
    """
    found = {}
    for ranks in range(1, most + 1):
        with contextlib.suppress(LayoutError):
            found[ranks] = layout_of(config, ranks).ghost_batch
    if not found:
        layout_of(config, most)
    return max(ranks for ranks, ghost in found.items() if ghost == max(found.values()))


def run_name(values: Mapping[str, Any]) -> str:
    """The folder of a run: `multiplicity=2,lr-scale=1,seed=0`, or `run` where nothing differs."""
    text = ",".join(f"{name.replace('_', '-')}={text_of(name, v)}" for name, v in values.items())
    plain = re.sub(r"[^A-Za-z0-9.,=+-]+", "_", text)
    if plain != text or len(text) > _LETTERS:
        digest = hashlib.sha256(text.encode()).hexdigest()[:_HEX]
        plain = f"{plain[: _LETTERS - _HEX - 1]},{digest}"
    return plain or "run"


def text_of(name: str, value: Any) -> str:
    """A value as a person gives it."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    known = {option.name: option for option in options()}
    return known[name].text(value) if name in known else str(value)
