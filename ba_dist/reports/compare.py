"""How far several runs have come, how soon, and in which settings they differ."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ba_dist.errors import ConfigError, UserError
from ba_dist.reports.columns import aligned
from ba_dist.reports.history import History, differing, printable, read, text
from ba_dist.reports.lines import positions
from ba_dist.run.names import is_share


def compare(runs: Sequence[Path], to: float | None = None) -> dict[str, Any]:
    """Compares runs by the number that they are judged by.

    A result counts from the first evaluation that found it; evaluations take no part in its time.

    Args:
        runs: run directories.
        to: the result to be reached, a share for accuracies; None for the best that all reach.

    Returns:
        `measure`, `less_is_better`, `unit`, `to` (None where a run has no result yet), `differs`
        (names of settings) and for each of `runs`: `run`, `finished`, `steps`, `epochs`, `seconds`,
        `final` (NaN where it was not finite), `best`, `best_step`, `reached` (None, or `step`,
        `epochs`, `seconds`), `per_second` and `settings`, of those that differ. What is not known
        is None.

    Raises:
        UserError: when a folder has no metrics.
        ConfigError: when the runs are judged by different numbers, or `to` is no share.
    """
    histories = [read(run) for run in dict.fromkeys(runs)]
    judged = histories[0].judged
    for history in histories:
        if history.judged.by != judged.by:
            raise ConfigError(
                f"{histories[0].folder} is judged by {judged.by}, {history.folder} by"
                f" {history.judged.by}: they cannot be compared"
            )
    if to is not None and is_share(judged.by) and not 0 <= to <= 1:
        raise ConfigError(f"--to is {to:g}; {judged.by} is a share, between 0 and 1: 0.9 for 90 %")
    found = [_results(history) for history in histories]
    sign = -1 if judged.less_is_better else 1
    bests = [max((sign * value for _, value in of), default=None) for of in found]
    known = [best for best in bests if best is not None]
    if to is None and len(known) == len(bests):
        to = sign * min(known)
    differs = differing(histories)
    return {
        "measure": judged.by,
        "less_is_better": judged.less_is_better,
        "unit": judged.unit,
        "to": to,
        "differs": differs,
        "runs": [
            _row(history, of, sign=sign, to=to, differs=differs)
            for history, of in zip(histories, found, strict=True)
        ],
    }


def _results(history: History) -> list[tuple[int, float]]:
    """(step, result) of each evaluation."""
    steps, values = history.series("epoch", history.judged.by)
    pairs = zip(steps.tolist(), values.tolist(), strict=True)
    return [(int(step), value) for step, value in pairs if math.isfinite(value)]


def _row(
    history: History,
    found: list[tuple[int, float]],
    *,
    sign: int,
    to: float | None,
    differs: list[str],
) -> dict[str, Any]:
    settings, summary = history.settings(), history.summary
    # The first of equal ones.
    best_step, best = max(found, key=lambda pair: sign * pair[1], default=(None, None))
    reached = [] if to is None else [step for step, v in found if sign * v >= sign * to]
    return {
        "run": str(history.folder),
        "finished": bool(summary),
        "steps": history.steps,
        "epochs": _at(history, history.steps, "epoch"),
        "seconds": _seconds(history, history.steps),
        "final": history.final,
        "best": best,
        "best_step": best_step,
        "reached": {
            "step": reached[0],
            "epochs": _at(history, reached[0], "epoch"),
            "seconds": _seconds(history, reached[0]),
        }
        if reached
        else None,
        "per_second": summary.get(f"{history.judged.unit}_per_second") or None,
        "settings": {name: settings.get(name) for name in differs},
    }


def _at(history: History, step: int, x: Any) -> float | None:
    """Where a step is on an axis; None where the run does not say."""
    try:
        return float(positions(history, [step], x)[0])
    except UserError:
        return None


def _seconds(history: History, step: int) -> float | None:
    hours = _at(history, step, "hours")
    return None if hours is None else 3600 * hours


# --- as text --------------------------------------------------------------------------------------


def table(compared: dict[str, Any]) -> str:
    """What `compare` found, for people: the results, and below what differs."""
    rows, form = compared["runs"], _form(compared["measure"])
    names = _names([row["run"] for row in rows])
    to = "" if compared["to"] is None else f" to {form(compared['to'])}"
    head = [
        "",
        f"final {compared['measure']}",
        "best",
        "of step",
        f"steps{to}",
        "epochs to it",
        "time to it",
    ]
    cells = [[*head, f"{compared['unit']}/s", "steps", "epochs", "time"]]
    for name, row in zip(names, rows, strict=True):
        reached = row["reached"] or {}
        cells.append(
            [
                name if row["finished"] else f"{name} (not finished)",
                *(form(row["final"]), form(row["best"]), _count(row["best_step"])),
                *(_count(reached.get("step")), _count(reached.get("epochs"))),
                duration(reached.get("seconds")),
                *(_count(row["per_second"], ".0f"), _count(row["steps"]), _count(row["epochs"])),
                duration(row["seconds"]),
            ]
        )
    lines = aligned(cells)
    if compared["differs"]:
        shown = [["what differs", *names]]
        for setting in compared["differs"]:
            values = [_short(text(row["settings"][setting])) for row in rows]
            shown.append([setting.replace("_", "-"), *values])
        lines += ["", *aligned(shown)]
    return "\n".join(lines)


def duration(seconds: float | None) -> str:
    """`9.0 s`, `12:30 min`, `3:05 h`"""
    if seconds is None:
        return "-"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 6000:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def _form(measure: str) -> Any:
    form = ".2%" if is_share(measure) else ".4g"

    def shown(value: float | None) -> str:
        if value is None:
            return "-"
        return f"{value:{form}}" if math.isfinite(value) else "not finite"

    return shown


def _count(value: float | None, form: str = ".6g") -> str:
    return "-" if value is None else f"{value:{form}}"


def _names(paths: list[str]) -> list[str]:
    """Names of folders, or where two are the same all of the path."""
    short = [Path(path).resolve().name for path in paths]
    return [printable(n if short.count(n) == 1 else p) for n, p in zip(short, paths, strict=True)]


def _short(value: str) -> str:
    return printable(value if len(value) <= 40 else f"{value[:39]}…")
