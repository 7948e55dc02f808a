"""What failures cost, and how often a checkpoint is worth while.

A job on N nodes fails every T = node / N seconds in the mean, at random (exponential). A segment
of τ seconds of training and a checkpoint of δ seconds is done again until no failure falls into
it, each time after a restart of R seconds (Daly 2006, equation 13):

    E[seconds] = T · exp(R/T) · (exp((τ+δ)/T) - 1) · work/τ

Best τ: √(2δT) (Young 1974); to a higher order, for δ < 2T (Daly 2006, equation 37),

    τ = √(2δT) · (1 + √(δ/2T)/3 + (δ/2T)/9) - δ

Sources: Young 1974, "A first order approximation to the optimum checkpoint interval"; Daly 2006, "A
higher order estimate of the optimum checkpoint interval for restart dumps".
"""

import math

from ba_dist.planner.machine import Failures


def between_failures(failures: Failures, nodes: int) -> float:
    """Mean seconds T between two failures of a job on so many nodes."""
    return failures.node / nodes


def young(checkpoint: float, between: float) -> float:
    """√(2δT)."""
    return math.sqrt(2 * checkpoint * between)


def best_interval(checkpoint: float, between: float) -> float:
    """Seconds of training between two checkpoints that cost the least, as Daly has it."""
    if checkpoint >= 2 * between:
        return between
    half = checkpoint / (2 * between)
    factor = 1 + math.sqrt(half) / 3 + half / 9
    return young(checkpoint, between) * factor - checkpoint


def expected_seconds(work: float, interval: float, failures: Failures, nodes: int) -> float:
    """Mean seconds from the start of a job to its end; infinite where it never ends.

    Args:
        work: seconds of training without failures and checkpoints.
        interval: seconds of training between two checkpoints, τ.
        failures: of the machine.
        nodes: of the job.
    """
    between = between_failures(failures, nodes)
    interval = min(interval, work)
    segment = (interval + failures.checkpoint) / between
    restart = failures.restart / between
    if segment + restart > 700:  # beyond what a float holds: nobody waits so long
        return math.inf
    return between * math.exp(restart) * math.expm1(segment) * work / interval
