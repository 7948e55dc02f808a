"""The bar and the lines of a run: 78 columns, whatever the numbers are."""

import fcntl
import os
import pty
import re
import struct
import termios

import pytest

from ba_dist.run import progress, report
from ba_dist.tasks.classification import Classification

BIG = 10**12


@pytest.fixture
def terminal(monkeypatch):
    """Makes a terminal of so many columns; returns a function that reads what was drawn on it."""
    leader, follower = pty.openpty()

    def of(columns):
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        monkeypatch.setenv("BA_DIST_TERMINAL", f"{os.uname().nodename}:{os.ttyname(follower)}")

        def read():
            os.write(follower, b"the end")
            shown = b""
            while not shown.endswith(b"the end"):
                shown += os.read(leader, 1 << 20)
            return re.split(r"[\r\n]+", shown.decode())

        return read

    yield of
    os.close(leader)
    os.close(follower)


def draw(total, loss, speed, seconds, monkeypatch):
    """A bar from its start to its end; a step takes so many seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = progress.Progress(True, 0, total)
    if shown._bar is not None:
        shown._bar.mininterval = shown._bar.miniters = 0
        shown._bar.dynamic_miniters = False
    for done in (1, max(1, total // 2), total):
        now[0] = done * seconds
        values = {"loss": loss, "accuracy": 1.0}
        shown.step(done, report.step_parts(values, Classification, speed))
    shown.close()


@pytest.mark.parametrize("columns", [0, 30, 60, 79, 80, 300])
@pytest.mark.parametrize(
    ("total", "loss", "speed", "seconds"),
    [
        (12, 0.57, 1641.0, 0.1),
        (450_360, 12.345, 12_345.0, 0.7),
        (BIG, 1e30, 1e12, 1e-9),
        (BIG, float("nan"), 1e-9, 1e9),
        (1, -1e300, 0.0, 0.0),
    ],
)
def test_a_bar_fits(terminal, monkeypatch, columns, total, loss, speed, seconds):
    read = terminal(columns)
    draw(total, loss, speed, seconds, monkeypatch)
    lines = read()
    width = min(columns - 1, 78) if columns else 78
    assert max(map(len, lines)) <= width, lines
    assert any(line.startswith("100%|") for line in lines)
    if width == 78:
        assert any(f"| {total}/{total}  " in line and "loss" in line for line in lines)


def test_a_usual_bar_says_everything(terminal, monkeypatch):
    read = terminal(80)
    draw(780, 0.572, 1641.0, 0.1, monkeypatch)
    ends = "390/780  0:00:39 left  loss 0.572  accuracy 100.0%  1641 images/s"
    assert any(line.startswith(" 50%|") and line.endswith(ends) for line in read())


@pytest.mark.parametrize(
    ("total", "loss", "speed"), [(780, 0.5, 963.0), (BIG, 1e30, 1e30), (BIG, float("nan"), 1e-30)]
)
def test_a_line_fits_where_there_is_no_terminal(monkeypatch, capsys, total, loss, speed):
    monkeypatch.setenv("BA_DIST_TERMINAL", "elsewhere:/dev/null")
    draw(total, loss, speed, 1e3, monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and max(map(len, lines)) <= 78
    assert lines[-1].startswith(f"step {total}/{total}  0:00:00 left  loss ")


def test_the_last_parts_go_first():
    assert progress.fitted(["12345", "678", "90"], 14) == "12345  678  90"
    assert progress.fitted(["12345", "678", "90"], 13) == "12345  678"
    assert progress.fitted(["12345", "678", "90"], 4) == "1234"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (359_999, "99:59:59"), (360_000, "4.17 days"), (1e15, "1.16e+10 days")],
)
def test_time_left(seconds, text):
    assert progress._clock(seconds) == text


def test_epochs_count_from_one_and_losses_stay_short():
    values = {"epoch": 0, "loss": 1e20, "accuracy": 0.5, "val_loss": 0.4, "val_top1": 1.0}
    assert report.epoch_line(values, Classification, 5) == (
        "epoch 1/5  loss 1.0e+20  accuracy 50.0%  val_loss 0.400  val_top1 100.0%"
    )
