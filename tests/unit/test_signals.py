"""A request to stop is noted, and a late one does not kill a rank that is already leaving."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from ba_dist.signals import stop_requests
number = int(sys.argv[1])
with stop_requests() as stop:
    os.kill(os.getpid(), number)
    print("noted", stop.wanted)
    stop.agreed = sys.argv[2] == "agreed"
os.kill(os.getpid(), number)
print("still here")
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2"])
@pytest.mark.parametrize("agreed", [True, False])
def test_a_late_request_while_leaving(name, agreed):
    number = signal.Signals[name].value
    words = [sys.executable, "-c", PROGRAM, f"{number}", "agreed" if agreed else "not"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert "noted True" in done.stdout or not agreed
    assert done.returncode == (0 if agreed else -number)
    assert ("still here" in done.stdout) == agreed
