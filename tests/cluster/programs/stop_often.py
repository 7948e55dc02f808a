"""Starts `stopping.py` again and again, and asks the launcher to stop it: inside an allocation.

Usage: stop_often.py TRIES LAUNCHER; prints the exit status and the seconds of each try.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

tries, *launcher = sys.argv[1:]
program = Path(__file__).with_name("stopping.py")
for number in range(int(tries)):
    command = [*launcher, "--", "python", str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ranks:
        print(ranks.stdout.readline().strip())
        start = time.monotonic()
        ranks.send_signal((signal.SIGUSR2, signal.SIGTERM)[number % 2])
        saved = ranks.stdout.read().split().count("saved")
    print(f"try: status {ranks.returncode} saved {saved} seconds {time.monotonic() - start:.2f}")
    sys.stdout.flush()
