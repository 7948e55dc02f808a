"""What a sweep is, as `sweep.json` in its folder keeps it: the same command goes on with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ba_dist.errors import ConfigError
from ba_dist.run.run_dir import read_json, write_json
from ba_dist.sweep.grid import Point, text_of

FILE = "sweep.json"


@dataclass(frozen=True)
class Row:
    """A point as the file has it.

    Args:
        values: name → text, of what differs in the sweep.
        run: name of the folder of its run.
    """

    values: Mapping[str, str]
    run: str


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Args:
        source: the words of `ba-dist train` that all runs have in common.
        rows: its points, in order.
    """

    source: list[str]
    rows: list[Row]

    @property
    def axes(self) -> list[str]:
        """The names of what differs."""
        return list(self.rows[0].values) if self.rows else []


def plan_of(source: Sequence[str], points: Sequence[Point]) -> Plan:
    """The plan of these points."""
    rows = [Row({k: text_of(k, v) for k, v in p.values.items()}, p.run) for p in points]
    return Plan(list(source), rows)


def read(folder: Path) -> Plan:
    """The plan in a folder.

    Raises:
        UserError: when there is none, or it is corrupt.
    """
    path = folder / FILE
    if folder.is_dir() and not path.exists():
        raise ConfigError(f"{folder} is not the folder of a sweep: it has no {FILE}")
    found = read_json(path)
    try:
        return Plan(list(found["source"]), [Row(**row) for row in found["points"]])
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path} is corrupt: {error!r}") from None


def keep(folder: Path, plan: Plan) -> None:
    """Writes the plan into the folder, with the points that an earlier one of the same sweep had.

    Raises:
        ConfigError: when the folder has a sweep of other runs, or files of something else.
    """
    path, rows = folder / FILE, plan.rows
    if path.exists():
        earlier = read(folder)
        _check_same(folder, earlier, plan)
        mine = [row.values for row in rows]
        rows = [*rows, *(row for row in earlier.rows if row.values not in mine)]
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there and is no sweep; choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    shown: list[dict[str, Any]] = [{"values": dict(r.values), "run": r.run} for r in rows]
    write_json(path, {"source": plan.source, "points": shown})


def _check_same(folder: Path, earlier: Plan, now: Plan) -> None:
    for what, old, new in (
        ("its runs have", " ".join(earlier.source), " ".join(now.source)),
        ("its runs differ in", ", ".join(earlier.axes), ", ".join(now.axes)),
    ):
        if old != new:
            raise ConfigError(
                f"{folder} is another sweep: {what} {old or 'nothing'}, now {new or 'nothing'};"
                " choose another --output"
            )
