"""How many steps a run has, and what is due after which of them. Known before the first step."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The steps of a run. Everything is asked by `done`, the number of steps that are done.

    Args:
        steps_per_epoch: N // B.
        total_steps: of the run.
        eval_every: epochs between two evaluations.
    """

    steps_per_epoch: int
    total_steps: int
    eval_every: int = 1

    def epoch(self, done: int) -> int:
        """The epoch that the last of these steps belongs to, from 0."""
        return (done - 1) // self.steps_per_epoch

    def is_over(self, done: int) -> bool:
        """Whether all steps of the run are done."""
        return done >= self.total_steps

    def fills_epoch(self, done: int) -> bool:
        """Whether an epoch ends here, and not only the run."""
        return done % self.steps_per_epoch == 0

    def ends_epoch(self, done: int) -> bool:
        """Whether an epoch, or the run in the middle of one, ends here."""
        return done > 0 and (self.fills_epoch(done) or done == self.total_steps)

    def evaluates(self, done: int) -> bool:
        """Whether an evaluation is due: at the end of the run, and of every so many epochs."""
        epochs, rest = divmod(done, self.steps_per_epoch)
        return done == self.total_steps or (rest == 0 and epochs % self.eval_every == 0)
