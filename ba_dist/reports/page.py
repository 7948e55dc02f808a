"""report.html: a run, or several side by side, on one page that needs nothing else."""

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ba_dist import __version__
from ba_dist.errors import UserError, reason
from ba_dist.reports import drawing
from ba_dist.reports.compare import duration
from ba_dist.reports.files import check_replaceable, default_output, mark_of
from ba_dist.reports.history import History, read, text
from ba_dist.reports.lines import labels_of, metric_of, positions, smooth, window_of
from ba_dist.reports.markup import Element, document, make
from ba_dist.reports.page_parts import (
    Images,
    apart,
    input_of,
    settings_of,
    table,
    versions_of,
)
from ba_dist.reports.style import CSS
from ba_dist.run.names import common_name, is_share
from ba_dist.run.report import REPORT
from ba_dist.storage import whole_file

_IMAGES = 1_000_000  # bytes of images that a page has at most
# Nothing is fetched and nothing is run, whatever a name that got into the page would want.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(runs: Sequence[Path], output: Path | None = None) -> Path:
    """Writes a page about runs: results, curves, layout, input, incidents, copies, settings.

    Args:
        runs: run directories.
        output: the file; by default report.html in the directory of the one run, or
            `report-NAME-NAME.html` in the current folder.

    Raises:
        UserError: when a folder has no metrics, or the page cannot be written.
    """
    runs = list(dict.fromkeys(runs))
    output = output or default_output(runs, REPORT)
    mark = mark_of("report", runs, output)
    histories = [read(run) for run in runs]
    try:
        check_replaceable(output, mark, "report")
        return whole_file.write(output, page(histories, mark))
    except OSError as error:
        raise UserError(f"the report cannot be written: {reason(error)}") from None


def page(runs: Sequence[History], mark: str) -> str:
    """The text of a report.

    Args:
        runs: that it is about.
        mark: that a later report of the same runs is known by.
    """
    labels = [runs[0].name] if len(runs) == 1 else labels_of(runs, seeds=True)
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    images = Images(_IMAGES)
    now = datetime.now(timezone.utc)
    body = make(
        "body",
        make("h1", title),
        make("p", _subtitle(runs[0]) if len(runs) == 1 else ", ".join(r.name for r in runs)),
        _results(runs, labels),
        make("h2", "Curves"),
        *_curves(runs, labels),
        *input_of(runs, labels),
        *apart(runs, labels, images),
        make("h2", "Settings"),
        *settings_of(runs, labels),
        make("h2", "Versions and machines"),
        table(["", *labels], versions_of(runs)),
        make("p", f"ba-dist {__version__}, {now:%Y-%m-%d %H:%M} UTC", class_="faint"),
    )
    head = make(
        "head",
        make("meta", charset="utf-8"),
        make("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        make("meta", name="viewport", content="width=device-width, initial-scale=1"),
        make("meta", name="generator", content=mark),
        make("link", rel="icon", href="data:,"),
        make("title", f"{title} – ba-dist"),
        make("style", CSS),
    )
    return document(make("html", head, body, lang="en"))


def _subtitle(run: History) -> str:
    settings = run.settings()
    baseline = text(settings["baseline"])
    made = text(settings["recipe"]) + ("" if baseline == "none" else f" ({baseline})")
    return f"{made}: {text(settings.get('model'))} on {text(settings.get('dataset'))}"


# --- results --------------------------------------------------------------------------------------


def _results(runs: Sequence[History], labels: Sequence[str]) -> Element:
    rows: dict[str, list[str | Element]] = {}
    every = [_result(run) for run in runs]
    for name in dict.fromkeys(name for result in every for name in result):
        rows[name] = [result.get(name, "–") for result in every]
    return table(["", *labels], rows)


def _result(run: History) -> dict[str, str]:
    judged, summary, settings = run.judged, run.summary, run.settings()
    steps, values = run.series("epoch", judged.by)
    found: dict[str, str] = {}
    if (final := run.final) is not None:
        found[judged.headline] = _value(judged.by, final)
    if len(values):
        best = int(values.argmin() if judged.less_is_better else values.argmax())
        found["best"] = f"{_value(judged.by, values[best])}, at step {int(steps[best])}"
    for name in (key for key in summary if key.startswith("val_") and key != judged.by):
        if summary[name] is not None:
            found[f"validation {common_name(name)}"] = _value(name, summary[name])
    epochs = f" ({run.steps / run.steps_per_epoch:.4g} epochs)" if run.steps_per_epoch else ""
    found["steps"] = f"{run.steps}{epochs}"
    samples, copies = text(settings.get("batch_size")), text(settings.get("multiplicity"))
    found["samples a step, B"], found["copies of each, M"] = samples, copies
    found["ranks"] = text(settings.get("ranks"))
    if speed := summary.get(f"{judged.unit}_per_second"):
        found["speed"] = f"{speed:.0f} {judged.unit}/s"
    if summary.get("seconds") is not None:
        found["time of training"] = duration(summary["seconds"])
    if summary.get("checkpoint_seconds") is not None:
        found["waited for checkpoints"] = duration(summary["checkpoint_seconds"])
    return found


def _value(name: str, value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.2%}" if is_share(name) else f"{value:.4g}"


# --- curves ---------------------------------------------------------------------------------------


def _curves(runs: Sequence[History], labels: Sequence[str]) -> Iterator[Element]:
    x = "epoch" if all(_epochs(run) for run in runs) else "step"
    charts = [_chart(runs, "loss", x), _measure(runs, x)]
    charts += [_chart(runs, name, x) for name in ("lr", "grad_norm")]
    drawn = [chart for chart in charts if chart is not None]
    keys = [make("li", drawing.key(i), label) for i, label in enumerate(labels)]
    kinds = {"dashed": "training", "solid": "validation"}
    if any(part.get("class", "").startswith("raw") for chart in drawn for part in chart):
        kinds["band"] = "single steps, from the least to the most"
    told = [make("li", make("i", class_=look), words) for look, words in kinds.items()]
    yield make("ul", *(keys if len(runs) > 1 else []), *told, class_="legend")
    yield make("div", *(make("figure", chart) for chart in drawn), class_="charts")


def _epochs(run: History) -> bool:
    return 0 < run.steps_per_epoch <= run.steps


def _measure(runs: Sequence[History], x: str) -> Element | None:
    """What the runs are judged by; nothing where an evaluation has found nothing else than loss."""
    name = common_name(runs[0].judged.by)
    return None if name == "loss" else _chart(runs, name, x)


def _chart(runs: Sequence[History], name: str, x: Any) -> Element | None:
    try:
        metric = metric_of(runs, name)
    except UserError:
        return None
    strokes = []
    longest = max(len(run.series("step", metric.training)[0]) for run in runs)
    window = 1 if name == "lr" else window_of(longest)
    for number, run in enumerate(runs):
        steps, values = run.series("step", metric.training)
        if len(steps):
            axis, values = positions(run, steps.tolist(), x), metric.of(values, training=True)
            if window > 1:
                strokes.append(drawing.Stroke(axis, values, number, "raw"))
            kind = "training" if metric.validation else "plain"
            # Often the same in all runs: each shows beside the next.
            width = 1.8 + 2.5 * (len(runs) - 1 - number) if name == "lr" else None
            strokes.append(drawing.Stroke(axis, smooth(values, window), number, kind, width))
        steps, values = run.series("epoch", metric.validation)
        if len(steps):
            axis = positions(run, steps.tolist(), x)
            strokes.append(drawing.Stroke(axis, metric.of(values), number, "validation"))
    return drawing.chart(strokes, x, metric.title, metric.log)
