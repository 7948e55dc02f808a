"""A request to stop is noted, and a late one does not kill a rank that is already leaving."""

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from ba_dist.health.signals import stop_requests
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


HELD = """
import os, signal, sys, threading, time
from ba_dist.health.signals import stop_requests
with stop_requests() as stop:
    child = os.fork()  # keeps all that is open
    if child == 0:
        os.close(1)  # but what the test reads to its end
        time.sleep(60)
    for _ in range(int(sys.argv[1])):
        os.kill(os.getpid(), signal.SIGINT)
    print("noted", stop.wanted, flush=True)
    # What two requests end is a matter of a thread: this one must not be quicker.
    threading.Event().wait(10 if sys.argv[1] == "2" else 0)
print("left", threading.active_count(), flush=True)
os.kill(child, signal.SIGKILL)
"""


@pytest.mark.parametrize("times", [1, 2])
def test_one_ctrl_c_is_a_request_and_two_are_the_end(times):
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HELD, f"{times}"]
    with subprocess.Popen(command, stdout=pipe, text=True, start_new_session=True) as process:
        said = [process.stdout.readline()]
        if times == 1:
            said.append(process.stdout.readline())
        status = process.wait(timeout=30)
        try:
            os.killpg(process.pid, signal.SIGKILL)  # the child that was left behind
        except ProcessLookupError:
            assert times == 1
    if times == 1:
        assert (status, said) == (0, ["noted True\n", "left 1\n"])
    else:
        assert status == 130  # wherever in its program it was
