"""Plots of runs."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from ba_dist.errors import UserError

_PANELS = (
    ("step", "loss", "training loss", "log"),
    ("epoch", "val_top1", "validation accuracy", "linear"),
    ("step", "lr", "learning rate", "linear"),
    ("step", "grad_norm", "gradient norm", "log"),
)


def plot_runs(runs: list[Path], output: Path) -> Path:
    """Draws loss, accuracy, learning rate and gradient norm of runs over steps.

    Args:
        runs: run directories; each becomes a line.
        output: the file to write; its suffix chooses the format.

    Raises:
        UserError: when a folder has no metrics, or the plot cannot be written.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), constrained_layout=True)
    for run in runs:
        events = _events(run)
        for axis, (event, value, _, _) in zip(axes.flat, _PANELS, strict=True):
            # A value that was not finite is null.
            points = [
                (e["step"], e[value])
                for e in events
                if e["event"] == event and e.get(value) is not None
            ]
            if points:
                marker = "o" if event == "epoch" else ""
                axis.plot(*zip(*points, strict=True), label=run.name, marker=marker, markersize=3)
    for axis, (_, _, title, scale) in zip(axes.flat, _PANELS, strict=True):
        axis.set(title=title, xlabel="step", yscale=scale)
        axis.grid(alpha=0.3)
    if axes.flat[0].lines:
        axes.flat[0].legend()
    return save(figure, output)


def save(figure: Any, output: Path) -> Path:
    """Writes a plot; its suffix chooses the format.

    Raises:
        UserError: when it cannot be written.
    """
    try:
        figure.savefig(output, dpi=130)
    except (OSError, ValueError) as error:
        raise UserError(f"the plot cannot be written: {error}") from None
    finally:
        plt.close(figure)
    return output


def _events(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{run} is not a run directory: it has no metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
