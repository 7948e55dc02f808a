"""Notices when training stands still, says which ranks are missing, and ends the job in the end.

Every rank has a thread that answers when it is asked how the rank is doing. When a rank has made no
progress for a while it asks all others; who does not answer is stopped, hung or gone. A collective
cannot be used for that: it is what is stuck. As long as another rank makes progress, a rank that
stands still is taken to wait for it.
"""

import sys
import threading
import time

import numpy as np

from ba_dist.comm import Comm

PHASES = ("starting", "waiting for input", "in the step", "evaluating", "saving")
_ASK, _ANSWER = 0, 1
_ANSWER_SECONDS = 3.0
_LATE_SECONDS = 15.0  # later than the rank that asked, the others end the job, too
_TURN_SECONDS = 5.0  # a rank asks so much later than the one before it
_SLOWER = 3.0  # a step that takes so many times as long as the last one is no stall yet


class Watchdog:
    """Watches this rank's training; make it on all ranks, and `close` it on all.

    Args:
        comm: the world.
        warning: seconds without progress before it is reported; more where steps are slow.
        timeout: seconds without progress before the job is ended, likewise; 0 waits for ever.
    """

    def __init__(self, comm: Comm, warning: float, timeout: float):
        self._comm, self._warning, self._timeout = comm, warning, timeout
        self._hosts = comm.hosts
        self._channel = comm.world.duplicate()
        self._beat = (time.monotonic(), 0, 0)
        self._pace = 0.0  # seconds of the last step
        self._waiting = 0.0  # when another rank was last seen to make progress
        self._reported = -1  # the step of which somebody has said that it takes long
        self._asked = False  # whether it was this rank that said so
        self._answers: dict[int, tuple[int, int, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self, phase: str, step: int) -> None:
        """This rank makes progress: it enters this phase, `step` steps being done."""
        now, (since, last, _) = time.monotonic(), self._beat
        if PHASES[last] in ("starting", "in the step"):
            self._pace = now - since
        self._beat = (now, PHASES.index(phase), step)

    def close(self) -> None:
        """Training is over."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(min(0.5, self._warning / 10)):
            self._listen()
            since, phase, step = self._beat
            age = time.monotonic() - since
            # Building the graph of the first step is long, and no stall.
            warned = self._reported == step or PHASES[phase] == "starting"
            slow = _SLOWER * self._pace
            if age > max(self._warning, slow) + _TURN_SECONDS * self._comm.rank and not warned:
                self._report(age, step)
            late = 0.0 if self._asked else _LATE_SECONDS
            waited = min(age, time.monotonic() - self._waiting)
            if self._timeout and waited > max(self._timeout, slow) + late:
                self._end(age, step)

    def _listen(self) -> None:
        """Answers who asks, and notes answers."""
        for sender, (kind, step, phase, age) in self._channel.received():
            if int(kind) == _ASK:
                since, mine, done = self._beat
                self._reported = int(step)
                answer = np.array([_ANSWER, done, mine, time.monotonic() - since])
                self._channel.post(sender, answer)
            else:
                self._answers[sender] = (int(step), int(phase), age)

    def _ask_all(self, step: int) -> dict[int, tuple[int, int, float]]:
        """The step, phase and seconds since the last sign of every rank that answers."""
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
        if any(_works(since, self._timeout) for _, _, since in answers.values()):
            self._waiting = time.monotonic()
            return
        missing = self._who_is_missing(answers, age)
        if self._beat[2] == step and not self._ended.is_set():
            self._say(
                f"ba-dist: no step for {age:.0f} s after step {step}, --stall-timeout is"
                f" {self._timeout:g} s: rank {self._comm.rank} on {self._comm.host} ends the job."
                f" {missing}"
            )
            self._comm.abort()

    def _who_is_missing(self, answers: dict[int, tuple[int, int, float]], age: float) -> str:
        return missing(answers, self._comm.rank, self._beat[1], self._hosts, age)

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _works(since: float, age: float) -> bool:
    """Whether a rank makes progress, by the seconds since its last sign.

    Ranks that are stuck together have stood still for about as long as the one that asks.
    """
    return since < age / 2


def missing(
    answers: dict[int, tuple[int, int, float]],
    asker: int,
    phase: int,
    hosts: list[str],
    age: float = 0.0,
) -> str:
    """Who is waited for, in words.

    Args:
        answers: rank → (steps done, phase, seconds since its last sign) of who answered.
        asker: the rank that asked.
        phase: that it is in.
        hosts: of the ranks.
        age: seconds since the asker's own last sign.
    """

    def name(rank: int) -> str:
        return f"rank {rank} on {hosts[rank]}"

    silent = [rank for rank in range(len(hosts)) if rank != asker and rank not in answers]
    elsewhere = [
        rank for rank, (_, other, since) in answers.items() if other != phase or _works(since, age)
    ]
    parts = []
    if silent:
        names = ", ".join(map(name, silent[:8])) + (" …" if len(silent) > 8 else "")
        parts.append(f"Missing: {names}: no answer, stopped, hung or gone")
    for rank in elsewhere[:8]:
        _, other, since = answers[rank]
        parts.append(f"{name(rank)} is {PHASES[other]}, its last sign {since:.0f} s ago")
    if not parts:
        parts.append(
            f"All ranks answer, {PHASES[phase]}: slow, or the network or a device is stuck"
        )
    return "; ".join(parts) + "."
