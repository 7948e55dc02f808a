"""Which classes a network takes for which others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def confusion(answers: npt.NDArray[np.int32], classes: int) -> Counts:
    """How often each class was answered for each label.

    Args:
        answers: int32 [N, 2], label and answer of every sample.
        classes: number of classes.

    Returns:
        int64 [classes, classes], rows by label, columns by answer.
    """
    flat = answers[:, 0].astype(np.int64) * classes + answers[:, 1]
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def per_class(counts: Counts, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What came of the samples of each class.

    Args:
        counts: of `confusion`.
        names: of the classes, where they are known.

    Returns:
        For each class its number, name, samples, right answers, `top1` (their share; None where
        there is no sample), `precision` (the share of right ones among the samples that were
        taken for it; None where there is none), `taken_for` the wrong class that was answered most
        often (None where there is none) and `taken` how often.
    """
    rows, columns, right = counts.sum(1), counts.sum(0), counts.diagonal()
    wrong = counts - np.diag(right)
    most = wrong.argmax(1)
    return [
        {
            "class": i,
            "name": name_of(i, names),
            "samples": int(rows[i]),
            "right": int(right[i]),
            "top1": _share(right[i], rows[i]),
            "precision": _share(right[i], columns[i]),
            "taken_for": int(most[i]) if wrong[i, most[i]] else None,
            "taken": int(wrong[i, most[i]]),
        }
        for i in range(len(counts))
    ]


def table(counts: Counts, names: Sequence[str] = ()) -> str:
    """The same for a person, a line for each class."""
    lines = [f"{'class':24}{'samples':>8}{'right':>9}{'precision':>11}  most often taken for"]
    for row in per_class(counts, names):
        other = row["taken_for"]
        taken = f"{_label(other, names)}: {row['taken']}" if other is not None else ""
        shares = "".join(
            f"{'-' if row[key] is None else format(row[key], '.2%'):>{width}}"
            for key, width in (("top1", 9), ("precision", 11))
        )
        lines.append(
            f"{_label(row['class'], names):24}{row['samples']:8}{shares}  {taken}".rstrip()
        )
    return "\n".join(lines)


def name_of(label: int, names: Sequence[str]) -> str | None:
    """The name of a class, where it is known."""
    return names[label] if label < len(names) else None


def _label(label: int, names: Sequence[str]) -> str:
    return f"{label} {name_of(label, names) or ''}".rstrip()


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None
