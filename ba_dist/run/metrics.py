"""What a run says of itself: metrics.jsonl, TensorBoard events, a progress bar or plain lines."""

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from ba_dist.run.run_dir import to_json

_LINE_SECONDS = 30.0


class Metrics:
    """Writes down events on rank 0; on other ranks it is never made.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: Path):
        import tensorflow as tf

        self._tf = tf
        self._file = (run_dir / "metrics.jsonl").open("a")
        self._board = tf.summary.create_file_writer(str(run_dir / "tensorboard"))

    def write(self, event: str, step: int, **values: Any) -> None:
        """Writes one object `{"event", "step", …}`; numbers also go to TensorBoard.

        A number that is not finite is null in the file, as JSON has no word for it.

        Args:
            event: start, step, epoch, checkpoint or end.
            step: steps that are done.
        """
        try:
            self._file.write(to_json({"event": event, "step": step, **values}) + "\n")
            self._file.flush()
        except OSError as error:  # which does not say what file it was
            raise OSError(error.errno, error.strerror, self._file.name) from None
        with self._board.as_default(step=step):
            for name, value in values.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    self._tf.summary.scalar(f"{event}/{name}", value)

    def close(self) -> None:
        """Flushes and closes both files."""
        # A disk that was full has been told of before; nothing more can be saved here.
        with contextlib.suppress(OSError, self._tf.errors.OpError):
            self._board.close()
        with contextlib.suppress(OSError):
            self._file.close()


class Progress:
    """A bar on a terminal, a plain line now and then elsewhere, nothing on ranks other than 0.

    Args:
        shown: whether this rank shows anything.
        done: steps done before.
        total: steps of the run.
    """

    def __init__(self, shown: bool, done: int, total: int):
        self._shown = shown
        self._total = total
        self._last_line = self._start = time.monotonic()
        self._first = done
        self._bar: Any = None
        self._terminal = _terminal() if shown else None
        if self._terminal is not None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=done,
                unit="step",
                file=self._terminal,
                dynamic_ncols=True,
                leave=False,
            )

    def step(self, done: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Shows that a step is done."""
        text = f"loss {loss:.3f}  accuracy {accuracy:6.1%}  {images_per_second:.0f} images/s"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._shown and time.monotonic() - self._last_line > _LINE_SECONDS:
            self._last_line = time.monotonic()
            rate = (self._last_line - self._start) / (done - self._first)
            left = (self._total - done) * rate
            print(f"step {done}/{self._total}  {text}  {_clock(left)} left", flush=True)

    def say(self, text: str) -> None:
        """Shows a line beside the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._terminal)
        elif self._shown:
            print(text, flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()


def _terminal() -> TextIO | None:
    """Where a bar can be drawn: the launcher's terminal when it is on this host, or our own."""
    told = os.environ.get("BA_DIST_TERMINAL")
    if told is None:
        return sys.stderr if sys.stderr.isatty() and sys.stdout.isatty() else None
    host, _, path = told.partition(":")
    if host != os.uname().nodename or not path.startswith("/dev/"):
        return None
    try:
        return Path(path).open("w")
    except OSError:
        return None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class StepClock:
    """Where the time of training goes, warm-up apart.

    The first steps of a process build the graph; they do not count for images per second.
    """

    WARM_UP = 2

    def __init__(self, instances_per_step: int):
        self._instances = instances_per_step
        self._steps = 0
        self._seconds = 0.0
        self._waited = 0.0
        self._recent: list[float] = []
        self._waits: list[float] = []

    def step(self, seconds: float, input_wait: float) -> None:
        """Counts one step of this length, of which `input_wait` seconds waited for input."""
        self._steps += 1
        if self._steps > self.WARM_UP:
            self._seconds += seconds
            self._waited += input_wait
        self._recent.append(seconds)
        self._waits.append(input_wait)

    def recent(self) -> dict[str, float]:
        """Images per second and seconds waited for input per step, since this was last asked."""
        steps = max(1, len(self._recent))
        rate = self._instances * steps / max(sum(self._recent), 1e-9)
        wait = sum(self._waits) / steps
        self._recent, self._waits = [], []
        return {"images_per_second": rate, "input_wait": wait}

    def images_per_second(self) -> float:
        """Of all steps after warm-up; of none, 0."""
        counted = self._steps - self.WARM_UP
        return self._instances * counted / self._seconds if counted > 0 else 0.0

    def waited(self) -> float:
        """Share of the time after warm-up in which training waited for input."""
        return self._waited / self._seconds if self._seconds else 0.0
