"""Notices in a script of one's own that ranks have left their batches after different steps.

What a script does between two batches is not known here, and may take any time: an evaluation, a
file that rank 0 writes. So a rank judges in two cases only: it waits for a batch, or it has left
while others have taken more batches.
"""

import time

from ba_dist.comm import Comm
from ba_dist.comm.leaving import abort
from ba_dist.health.watchdog import ACTIVITIES, Sign, Watchdog

_TURN_SECONDS, _LAST_TURN = 0.5, 10  # a rank judges so much later than the one before it
_WAITING, _HOLDING, _LEFT = "waiting for input", "in the step", "leaving"


class ScriptWatchdog(Watchdog):
    """Watches how far each rank's script has come. All ranks make one, and all `close` it.

    Args:
        comm: the world.
        timeout: seconds that a rank waits for others before it ends the job.
    """

    def __init__(self, comm: Comm, timeout: float):
        super().__init__(comm, warning=timeout, timeout=timeout)

    def _watch(self) -> None:
        turn = _TURN_SECONDS * min(self._comm.rank, _LAST_TURN)
        while not self._ended.wait(min(0.5, self._timeout / 10)):
            self._listen()
            since, index, step = self._beat
            now = time.monotonic()
            judges = ACTIVITIES[index] in (_WAITING, _LEFT)
            if judges and now - max(since, self._others_worked) > self._timeout + turn:
                self._judge(ACTIVITIES[index], step, now - since)

    def _judge(self, activity: str, step: int, age: float) -> None:
        """Ends the job where the others cannot have the batch that one of them waits for."""
        answers = self._ask_all(step)
        others = {rank for rank in range(self._comm.world_size) if rank != self._comm.rank}
        silent = sorted(others - answers.keys())
        guilty = astray(answers, silent, activity, step=step, timeout=self._timeout)
        if not guilty:
            self._others_worked = time.monotonic()
            return
        if self._beat[1:] != (ACTIVITIES.index(activity), step) or self._ended.is_set():
            return
        mine = (
            f"left its batches after step {step}"
            if activity == _LEFT
            else f"has waited {age:.0f} s for the batch of step {step + 1}"
        )
        names = [f"rank {rank} on {self._hosts[rank]} {what}" for rank, what in guilty[:8]]
        more = " …" if len(guilty) > len(names) else ""
        self._say(
            f"ba-dist: rank {self._comm.rank} on {self._comm.host} {mine}, but"
            f" {'; '.join(names)}{more}. All ranks must take the same steps, or leave after the"
            f" same one. The job ends; stall_timeout is {self._timeout:g} s."
        )
        abort(1)


def astray(
    answers: dict[int, Sign],
    silent: list[int],
    activity: str,
    *,
    step: int,
    timeout: float,
) -> list[tuple[int, str]]:
    """The ranks because of which the asker waits in vain, and what each does; none if none does.

    Args:
        answers: rank → what it last did.
        silent: ranks that do not answer.
        activity: of the asker.
        step: batches that it has taken.
        timeout: seconds without progress after which a rank counts as stuck.
    """
    if activity == _LEFT:
        # A rank that has ended its script does not answer, and misses nothing.
        guilty = [
            rank
            for rank, sign in answers.items()
            if ACTIVITIES[sign.activity] != _LEFT and sign.step > step and sign.age > timeout / 2
        ]
    elif any(sign.age < timeout / 2 for sign in answers.values()):
        return []
    else:
        behind = [
            rank
            for rank, sign in answers.items()
            if ACTIVITIES[sign.activity] == _LEFT or sign.step < step
        ]
        guilty = sorted([*silent, *behind]) or sorted(answers)
    return [(rank, _doing(answers.get(rank))) for rank in guilty]


def _doing(sign: Sign | None) -> str:
    if sign is None:
        return "does not answer: stopped, hung or gone"
    return {
        _WAITING: f"waits for the batch of step {sign.step + 1}",
        _HOLDING: f"took the batch of step {sign.step} {sign.age:.0f} s ago",
        _LEFT: f"left after step {sign.step}",
    }.get(ACTIVITIES[sign.activity], "has not asked for a batch yet")
