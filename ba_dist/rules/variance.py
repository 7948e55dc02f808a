"""How much of a gradient's variance is between samples and how much between copies of a sample.

The gradient of copy m of sample n is g_nm = μ + a_n + e_nm, where samples are drawn independently,
and of each sample copies. With σ²_s = E‖a_n‖² and σ²_c = E‖e_nm‖², both summed over parameters, the
mean gradient of a step has

    E‖g - μ‖² = σ²_s / B + σ²_c / (B·M)        E‖g‖² = ‖μ‖² + σ²_s / B + σ²_c / (B·M)

so more copies take away the second term alone. This is the one-way random-effects model; it holds
at the weights that it was measured at, and only there.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# More copies than this are not recommended: the paper's largest M is 40.
MOST_COPIES = 1024


@dataclass(frozen=True)
class Split:
    """Variance of the gradient of one instance, in two parts, and the gradient's true length.

    Estimates without bias, so a part that is near 0 may be below it.

    Args:
        samples: σ²_s.
        copies: σ²_c.
        signal: ‖μ‖².
    """

    samples: float
    copies: float
    signal: float

    def of_mean(self, batch_size: int, multiplicity: float) -> float:
        """E‖g - μ‖² of a step's mean gradient; `math.inf` copies leave that of the samples."""
        return (self.samples + self.copies / multiplicity) / batch_size

    def share_of_copies(self, multiplicity: int) -> float:
        """The part of that variance which still comes from copies, 0 … 1 where both are above 0."""
        left = self.copies / multiplicity
        return left / (self.samples + left) if self.samples + left else float("nan")

    def norm(self, batch_size: int, multiplicity: int) -> float:
        """√E‖g‖², the length that a step's mean gradient has (figure 1 of the paper)."""
        return math.sqrt(max(0.0, self.signal + self.of_mean(batch_size, multiplicity)))

    def copies_needed(self, share: float = 0.1) -> int | None:
        """The smallest M of which the copies' share is at most `share`.

            σ²_c / M ≤ share · (σ²_s + σ²_c / M)    ⇔    M ≥ σ²_c / σ²_s · (1 - share) / share

        Returns:
            None where samples seem not to differ, or more than `MOST_COPIES` were needed.
        """
        if self.copies <= 0:
            return 1
        if self.samples <= 0:
            return None
        wanted = self.copies / self.samples * (1 - share) / share
        # A quotient that is whole but for its rounding must not be rounded up.
        needed = max(1, math.ceil(wanted * (1 - 1e-12)))
        return needed if needed <= MOST_COPIES else None


def split(groups: Iterable[Iterable[npt.ArrayLike]], size: int = 1) -> Split:
    """Estimates the parts from gradients of C copies of each of J groups of samples.

        MS_c = Σ_j Σ_m ‖g_jm - ḡ_j‖² / (J·(C-1))        E MS_c = σ²_c / size
        MS_s = C · Σ_j ‖ḡ_j - ḡ‖² / (J-1)               E MS_s = σ²_c / size + C·σ²_s / size
        ‖μ‖² = ‖ḡ‖² - MS_s / (J·C)

    A group is `size` samples and g_jm the mean gradient of copy m of them. Where samples see each
    other, in a ghost batch, the group is what is independent. One pass in float64; a sum of all
    gradients is kept, not all of them.

    Args:
        groups: for each group its copies' gradients [parameters]; J of 2 or more, C of 2 or more.
        size: samples in a group.

    Source: the ANOVA estimators of a balanced one-way random model, Searle, Casella and McCulloch
    1992, "Variance Components", section 3.5.
    """
    whole: npt.NDArray[np.float64] = np.zeros(1)
    count = copies = 0
    squares = squares_of_means = 0.0
    for group in groups:
        total: npt.NDArray[np.float64] = np.zeros(1)
        copies = 0
        for gradient in group:
            vector = np.asarray(gradient, np.float64)
            total = total + vector
            squares += float(vector @ vector)
            copies += 1
        mean = total / copies
        squares_of_means += float(mean @ mean)
        whole = whole + mean
        count += 1
    mean = whole / count
    within = (squares - copies * squares_of_means) / (count * (copies - 1))
    between = copies * (squares_of_means - count * float(mean @ mean)) / (count - 1)
    return Split(
        samples=size * (between - within) / copies,
        copies=size * within,
        signal=float(mean @ mean) - between / (count * copies),
    )


def mean_of(splits: Sequence[Split]) -> tuple[Split, Split]:
    """(the mean of independent estimates, the standard error of each of its numbers).

    The error is NaN where there is one estimate.
    """
    table = np.array([[part.samples, part.copies, part.signal] for part in splits])
    mean = [math.fsum(column) / len(table) for column in table.T]
    if len(table) == 1:
        return Split(*mean), Split(*[float("nan")] * 3)
    error = table.std(axis=0, ddof=1) / math.sqrt(len(table))
    return Split(*mean), Split(*error.tolist())
