"""The plot that `accuracy.py` writes: figure 2 of the paper on the right, with baselines."""

from pathlib import Path
from typing import Any

from ba_dist.reports.style import COLORS

BLUE, _, GREEN, _, ORANGE, *_ = COLORS


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Final error of every experiment with its interval; a point is a seed.

    Args:
        results: as in accuracy.json.
        path: of the PNG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.45 * len(results) + 1.2), layout="constrained")
    for place, line in enumerate(reversed(results)):
        name = line["experiment"]
        colour = GREEN if "mixup" in name else BLUE if name.startswith("BA") else ORANGE
        errors = [100 - accuracy for accuracy in line["accuracy"]]
        half = line["interval"] if len(errors) > 1 else 0
        axes.errorbar(100 - line["mean"], place, xerr=half, fmt="o", color=colour, capsize=4)
        axes.plot(errors, [place] * len(errors), "|", color=colour, markersize=12)
    axes.set_yticks(range(len(results)), [line["experiment"] for line in reversed(results)])
    axes.set_xlabel("final validation error in %, mean and 95 % interval; a dash is a seed")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)
