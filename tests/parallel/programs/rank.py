"""Has `template.py` fork the process of this rank, and ends as that does. SOCKET WORDS…

WORDS are those of launch/mpirun.sh.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

request = {
    "words": sys.argv[2:],
    "environment": dict(os.environ),
    "folder": str(Path.cwd()),
    "cores": sorted(os.sched_getaffinity(0)),
}
with socket.socket(socket.AF_UNIX) as template:
    template.connect(sys.argv[1])
    socket.send_fds(template, [f"{json.dumps(request)}\n".encode()], [0, 1, 2])
    status = int(template.recv(100))
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
