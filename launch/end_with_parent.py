"""Runs a command that gets SIGNAL when its parent process ends, however the parent ends.

    python end_with_parent.py SIGNAL COMMAND [ARGUMENT ...]

Nothing else tells the ranks that mpirun was killed: they would train on, or hang, unseen.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>; the setting survives exec

name, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.Signals["SIG" + name].value)
os.execvp(command[0], command)
