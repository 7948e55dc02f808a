"""A training that runs while a test looks on, and does things to its ranks from outside."""

import json
import os
import subprocess
import time

import psutil

from ba_dist.comm.launcher import launched
from tests.parallel.ranks import LAUNCHER, PROGRAMS

# A small world in which a step takes some 20 ms, so that much happens in little time.
SMALL = [
    *("train", "quickstart", "--dataset", "synthetic", "--image-size", "16"),
    *("--image-channels", "1", "--train-samples", "1000", "--val-samples", "50"),
    *("--batch-size", "32", "--multiplicity", "2", "--log-every", "1"),
]


def small(run_dir, *flags):
    """The words of such a training."""
    return [*SMALL, "--run-dir", str(run_dir), *map(str, flags)]


def shallow(run_dir, *flags):
    """The words of such a training of a network with hardly a layer, where the network is nothing
    to the test: its ranks are ready in two thirds of the time."""
    return ["python", str(PROGRAMS / "shallow.py"), *small(run_dir, *flags)]


class Job:
    """`ba-dist WORDS` (or `python WORDS…`) on so many ranks; use as a context, which ends it.

    Args:
        ranks: how many.
        words: of the command.
        run_dir: that its flags name.
    """

    def __init__(self, ranks, words, run_dir):
        self.run_dir = run_dir
        self._started = ranks
        command = [str(LAUNCHER), "-n", str(ranks), "--", *words]
        self._known = set()
        self._launcher = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for process in self.left():
            process.kill()
        self._launcher.kill()
        self._launcher.communicate()

    def until_step(self, step, timeout=120):
        """Returns when so many steps are in the metrics."""
        deadline = time.monotonic() + timeout
        while self.last_step() < step:
            if self._launcher.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"step {step} was not reached: {self._launcher.communicate()}")
            time.sleep(0.02)
        self._ranks()
        # Else `left` would find that all have ended.
        assert len(self._known) >= self._started, "the processes of the ranks are not found"

    def last_step(self):
        """The newest step in the metrics."""
        steps = [entry["step"] for entry in metrics(self.run_dir)]
        return max(steps, default=0)

    def process(self, rank):
        """The process of a rank, to send signals to."""
        return self._ranks()[rank]

    def wait(self, timeout=120):
        """(exit status, everything that was printed, seconds until the last process was gone)."""
        begun = time.monotonic()
        output = self._launcher.communicate(timeout=timeout)[0]
        while self.left() and time.monotonic() < begun + timeout:
            time.sleep(0.02)
        return self._launcher.returncode, output, time.monotonic() - begun

    def left(self):
        """Processes of ranks that are alive; a dead one may wait for long to be collected."""
        self._ranks()
        return [process for process in self._known if alive(process)]

    def _ranks(self):
        """Rank → process, as long as the launcher runs."""
        found = {}
        if self._launcher.poll() is not None:
            return found
        for process in psutil.Process(self._launcher.pid).children(recursive=True):
            try:
                launch = launched(process.environ())
                if launch and str(self.run_dir) in process.cmdline():
                    found[launch.rank] = process
            except psutil.Error:
                continue
        self._known |= set(found.values())
        return found


def alive(process):
    """Whether a process can still do anything."""
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def metrics(run_dir):
    """The events that are whole."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    events = []
    for line in path.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def host():
    """As messages name it."""
    return os.uname().nodename
