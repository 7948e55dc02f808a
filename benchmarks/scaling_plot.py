"""The plot that `scaling.py` writes beside its JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ba_dist.reports.style import COLORS, bar_look


def draw(results: list[dict[str, Any]], parts: Sequence[str], path: Path) -> None:
    """Steps per second on the left, what a step's time goes into on the right.

    Args:
        results: as in scaling.json.
        parts: of a step's time.
        path: of the PNG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    labels = [
        f"M = {r['multiplicity']}, R = {r['group_size']}\n{r['ranks']} ranks" for r in results
    ]
    places = range(len(results))
    steps = [r["steps_per_second"] for r in results]
    left.bar(places, [s["median"] for s in steps], yerr=[s["deviation"] for s in steps], capsize=4,
             color=COLORS[0])  # fmt: skip
    left.set(title="Steps per second", ylabel="steps/s")
    bottom = np.zeros(len(results))
    for number, part in enumerate(parts):
        height = np.array([r["milliseconds"][part]["median"] for r in results])
        right.bar(places, height, bottom=bottom, label=part, **bar_look(number))
        bottom += height
    right.set(title="Where a step's time goes", ylabel="ms a step")
    right.set_ylim(0, 1.2 * bottom.max())  # room for the legend
    right.legend(loc="upper center", ncols=len(parts))
    for axes in (left, right):
        axes.set_xticks(places, labels)
    figure.savefig(path, dpi=120)
    plt.close(figure)
