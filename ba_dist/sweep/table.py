"""What came of a sweep: mean and deviation over the seeds, for each combination of the rest."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ba_dist.reports.columns import aligned
from ba_dist.run.names import is_share
from ba_dist.run.run_dir import read_json, write_json
from ba_dist.storage import whole_file
from ba_dist.sweep.plan import Plan
from ba_dist.sweep.runs import finished


def collect(folder: Path, plan: Plan) -> list[dict[str, Any]]:
    """A row for each combination of what differs beside the seed.

    The deviation is that of a sample (n - 1); null where there is one run alone. A number that was
    not finite in one of the runs has neither mean nor deviation.

    Args:
        folder: of the sweep.
        plan: of its points.

    Returns:
        Rows with `settings` (name → text), `runs` (names of those that are finished), `missing`
        (names of the others) and `results` (name → values, mean, deviation).
    """
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for row in plan.rows:
        key = tuple((name, text) for name, text in row.values.items() if name != "seed")
        groups.setdefault(key, []).append(row.run)
    rows = []
    for key, runs in groups.items():
        done = [run for run in runs if finished(folder / run)]
        summaries = [read_json(folder / run / "summary.json") for run in done]
        rows.append(
            {
                "settings": dict(key),
                "runs": done,
                "missing": [run for run in runs if run not in done],
                "results": {name: _over_seeds(name, summaries) for name in _measured(summaries)},
            }
        )
    return rows


def _measured(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for s in summaries for name in s if name.startswith("val_")))


def _over_seeds(name: str, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = [summary.get(name) for summary in summaries]
    numbers = [float(value) for value in values if value is not None]
    whole = len(numbers) == len(values)
    deviation = statistics.stdev(numbers) if whole and len(numbers) > 1 else None
    mean = statistics.fmean(numbers) if whole else None
    return {"values": values, "mean": mean, "deviation": deviation}


def write(folder: Path, plan: Plan) -> str:
    """Writes table.json, table.md and table.txt into the folder of a sweep.

    Returns:
        The text of table.txt.
    """
    rows = collect(folder, plan)
    cells = _cells(rows)
    text = _text(" ".join(plan.source), cells)
    whole_file.write(folder / "table.txt", text + "\n")
    whole_file.write(folder / "table.md", _markdown(" ".join(plan.source), cells) + "\n")
    write_json(folder / "table.json", {"source": plan.source, "rows": rows})
    return text


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The head, then a line of cells for each row."""
    settings = list(dict.fromkeys(name for row in rows for name in row["settings"]))
    results = list(dict.fromkeys(name for row in rows for name in row["results"]))
    head = [*(name.replace("_", "-") for name in settings), "runs", *results]
    lines = [head]
    for row in rows:
        done, planned = len(row["runs"]), len(row["runs"]) + len(row["missing"])
        runs = f"{done}" if done == planned else f"{done} of {planned}"
        values = [row["settings"].get(name, "") for name in settings]
        shown = [_shown(name, row["results"].get(name)) for name in results]
        lines.append([*values, runs, *shown])
    return lines


def _shown(name: str, result: Mapping[str, Any] | None) -> str:
    """`93.70 ± 0.12 %`"""
    if result is None:
        return "-"
    if result["mean"] is None:
        return "not finite"
    share = is_share(name)
    numbers = [result["mean"], *([result["deviation"]] if result["deviation"] is not None else [])]
    texts = [f"{100 * number:.2f}" if share else f"{number:.4g}" for number in numbers]
    return " ± ".join(texts) + (" %" if share else "")


_FOOT = "mean ± deviation over seeds (n - 1), at the end of each run"


def _text(title: str, cells: list[list[str]]) -> str:
    return "\n".join([title, "", *aligned(cells), "", _FOOT])


def _markdown(title: str, cells: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]
    rule = "|" + "---|" * len(cells[0])
    return "\n".join([f"`{title}`", "", lines[0], rule, *lines[1:], "", _FOOT])
