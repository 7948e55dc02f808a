"""Starts `failing.py` again and again, with one rank after the other to fail: inside an allocation.

Usage: fail_often.py TRIES LAUNCHER; prints the exit status and the seconds of each try.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

tries, *launcher = sys.argv[1:]
program = Path(__file__).with_name("failing.py")
for number in range(int(tries)):
    rank = str(number % int(os.environ["SLURM_NTASKS"]))
    command = [*launcher, "--", "python", str(program), rank]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    seconds = time.time() - float(done.stdout.split("failed ")[1].split()[0])
    print(f"try: status {done.returncode} seconds {seconds:.2f}", flush=True)
