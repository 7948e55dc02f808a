"""Pictures of what was measured of a run's gradients."""

from pathlib import Path

import numpy as np

from ba_dist.analysis.correlation import Correlations
from ba_dist.analysis.variance import Variances
from ba_dist.reports.plots import plt, save
from ba_dist.reports.style import color_of, look_of


def plot_correlations(found: Correlations, name: str, output: Path, mark: str) -> Path:
    """Draws the median correlation of each kind of pair in each state, with its deviation.

    Args:
        found: what was measured.
        name: of the run.
        output: the file to write; its suffix chooses the format.
        mark: that an earlier picture of the same run holds.

    Raises:
        UserError: when the plot cannot be written.
    """
    states, kinds = [state for state, _ in found.states], len(found.states[0][1])
    figure, axis = plt.subplots(figsize=(max(7.0, 1.3 * len(states) + 4), 5), layout="constrained")
    for i in range(kinds):
        rows = [rows[i] for _, rows in found.states]
        across = np.arange(len(states)) + 0.6 * (i - (kinds - 1) / 2) / kinds
        medians = [row.spread.median for row in rows]
        deviations = [row.spread.deviation for row in rows]
        look = {**look_of(i), "linestyle": "", "capsize": 3, "markersize": 6}
        if not rows[0].augmentations:  # two samples: hollow
            look["markerfacecolor"] = "white"
        axis.errorbar(across, medians, deviations, label=rows[0].pair, **look)
    axis.set_xticks(range(len(states)), [f"{s.name}\nepoch {s.epoch:g}" for s in states])
    title = f"{name}: correlation of gradients, {found.pairs} pairs of each kind"
    axis.set(ylabel="Pearson correlation: median, deviation")
    axis.set_title(title, parse_math=False, fontsize=11)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=9)
    return save(figure, output, mark)


def plot_variances(found: Variances, name: str, output: Path, mark: str) -> Path:
    """Draws what is left of the variance, and the norm of the gradient, for each M.

    Args:
        found: what was measured.
        name: of the run.
        output: the file to write; its suffix chooses the format.
        mark: that an earlier picture of the same run holds.

    Raises:
        UserError: when the plot cannot be written.
    """
    copies = found.multiplicities
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for number, part in enumerate(found.measured):
        once = part.split.of_mean(found.batch_size, 1)
        label = f"{part.state.name}, epoch {part.state.epoch:g}"
        shares = [part.split.of_mean(found.batch_size, m) / once for m in copies]
        look = {**look_of(number), "markersize": 5}
        left.plot(copies, shares, label=label, **look)
        floor = part.split.of_mean(found.batch_size, float("inf")) / once
        left.axhline(floor, color=color_of(number), linestyle=":", linewidth=1)
        norms = [part.split.norm(found.batch_size, m) for m in copies]
        right.plot(copies, norms, label=label, **look)
    left.set(ylabel="variance / that with M = 1 (dotted: endless copies)", ylim=(0, 1.05))
    highest = max(part.split.norm(found.batch_size, copies[0]) for part in found.measured)
    right.set(ylabel="L2 norm of the gradient of a step", ylim=(0, 1.08 * highest))
    for axis in (left, right):
        axis.set(xlabel="M, copies of each sample", xscale="log")
        axis.set_xticks(copies, [str(m) for m in copies], minor=False)
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    left.legend(fontsize=9)
    title = f"{name}: variance of the gradient, B = {found.batch_size}"
    figure.suptitle(title, fontsize=11, parse_math=False)
    return save(figure, output, mark)
