"""Notices that training makes no progress, reports which ranks are missing, and ends the job.

Every rank has a thread that answers the questions of other ranks. A rank that has made no progress
for a while asks all others; a rank that does not answer is stopped, hung or gone. A collective
cannot be used to ask, because it is a collective that is stuck. As long as another rank makes
progress, a rank without progress is taken to wait for it.
"""

import sys
import threading
import time
from typing import NamedTuple

import numpy as np

from ba_dist.comm import Comm
from ba_dist.comm.leaving import abort

ACTIVITIES = ("starting", "waiting for input", "in the step", "evaluating", "saving", "leaving")
_ASK, _ANSWER = 0, 1
_ANSWER_SECONDS = 3.0
_LATE_SECONDS = 15.0  # a rank that did not ask ends the job so much later than one that did
_TURN_SECONDS = 5.0  # each rank asks so much later than the rank before it
_SLOWER = 3.0  # a step may take so many times as long as the last one before it is a stall


class Sign(NamedTuple):
    """What a rank last did.

    Args:
        step: steps done.
        activity: index of ACTIVITIES.
        age: seconds since it began this.
    """

    step: int
    activity: int
    age: float


class Watchdog:
    """Watches this rank's training. All ranks make one, and all `close` it.

    Where steps are slow, both times are stretched to a multiple of the last step's.

    Args:
        comm: the world.
        warning: seconds without progress before a warning.
        timeout: seconds without progress before the job is ended; 0 waits for ever.
    """

    def __init__(self, comm: Comm, warning: float, timeout: float):
        self._comm, self._warning, self._timeout = comm, warning, timeout
        self._hosts = comm.hosts
        self._channel = comm.world.duplicate()
        self._beat = (time.monotonic(), 0, 0)  # when this rank began which activity, steps done
        self._pace = 0.0  # seconds of the last step
        self._others_worked = 0.0  # when another rank was last seen to make progress
        self._reported = -1  # the step after which some rank has warned
        self._asked = False  # whether it was this rank
        self._answers: dict[int, Sign] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self, activity: str, step: int) -> None:
        """Says that this rank makes progress.

        Args:
            activity: what it begins, one of ACTIVITIES.
            step: steps done.
        """
        now, (since, last, _) = time.monotonic(), self._beat
        if ACTIVITIES[last] in ("starting", "in the step"):
            self._pace = now - since
        self._beat = (now, ACTIVITIES.index(activity), step)

    def close(self) -> None:
        """Ends the thread; training is over."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(min(0.5, self._warning / 10)):
            self._listen()
            since, activity, step = self._beat
            age = time.monotonic() - since
            # Building the graph of the first step takes long, and is no stall.
            warned = self._reported == step or ACTIVITIES[activity] == "starting"
            slow = _SLOWER * self._pace
            if age > max(self._warning, slow) + _TURN_SECONDS * self._comm.rank and not warned:
                self._report(age, step)
            late = 0.0 if self._asked else _LATE_SECONDS
            waited = min(age, time.monotonic() - self._others_worked)
            if self._timeout and waited > max(self._timeout, slow) + late:
                self._end(age, step)

    def _listen(self) -> None:
        """Answers the ranks that ask, and keeps the answers of others."""
        for sender, (kind, step, activity, age) in self._channel.received():
            if int(kind) == _ASK:
                since, mine, done = self._beat
                self._reported = int(step)
                answer = np.array([_ANSWER, done, mine, time.monotonic() - since])
                self._channel.post(sender, answer)
            else:
                self._answers[sender] = Sign(int(step), int(activity), age)

    def _ask_all(self, step: int) -> dict[int, Sign]:
        """Rank → what it last did, of every rank that answers in time."""
        self._answers = {}
        others = [rank for rank in range(self._comm.world_size) if rank != self._comm.rank]
        for rank in others:
            self._channel.post(rank, np.array([_ASK, step, 0, 0.0]))
        deadline = time.monotonic() + _ANSWER_SECONDS
        while len(self._answers) < len(others) and time.monotonic() < deadline:
            if self._ended.wait(0.05):
                break
            self._listen()
        return self._answers

    def _report(self, age: float, step: int) -> None:
        self._reported, self._asked = step, True
        missing = self._who_is_missing(self._ask_all(step), age)
        self._say(f"warning: no step for {age:.0f} s after step {step}. {missing}")

    def _end(self, age: float, step: int) -> None:
        answers = self._ask_all(step)
        if any(_works(sign.age, self._timeout) for sign in answers.values()):
            self._others_worked = time.monotonic()
            return
        missing = self._who_is_missing(answers, age)
        if self._beat[2] == step and not self._ended.is_set():
            self._say(
                f"ba-dist: no step for {age:.0f} s after step {step}, --stall-timeout is"
                f" {self._timeout:g} s: rank {self._comm.rank} on {self._comm.host} ends the job."
                f" {missing}"
            )
            abort(1)

    def _who_is_missing(self, answers: dict[int, Sign], age: float) -> str:
        return missing(answers, self._comm.rank, self._beat[1], hosts=self._hosts, age=age)

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _works(age: float, age_of_asker: float) -> bool:
    """Whether a rank makes progress, by the seconds since its last sign and the asker's.

    Ranks that are stuck together have made no progress for about as long as the one that asks.
    """
    return age < age_of_asker / 2


def missing(
    answers: dict[int, Sign], asker: int, activity: int, *, hosts: list[str], age: float = 0.0
) -> str:
    """Which ranks the asker waits for, in words.

    Args:
        answers: rank → what it last did, of the ranks that answered.
        asker: the rank that asked.
        activity: of the asker, index of ACTIVITIES.
        hosts: of all ranks.
        age: seconds since the asker's own last sign.
    """

    def name(rank: int) -> str:
        return f"rank {rank} on {hosts[rank]}"

    silent = [rank for rank in range(len(hosts)) if rank != asker and rank not in answers]
    elsewhere = [
        rank for rank, sign in answers.items() if sign.activity != activity or _works(sign.age, age)
    ]
    parts = []
    if silent:
        names = ", ".join(map(name, silent[:8])) + (" …" if len(silent) > 8 else "")
        parts.append(f"Missing: {names}: no answer, stopped, hung or gone")
    for rank in elsewhere[:8]:
        sign = answers[rank]
        doing = ACTIVITIES[sign.activity]
        parts.append(f"{name(rank)} is {doing}, its last sign {sign.age:.0f} s ago")
    if not parts:
        parts.append(
            f"All ranks answer, {ACTIVITIES[activity]}: slow, or the network or a device is stuck"
        )
    return "; ".join(parts) + "."
