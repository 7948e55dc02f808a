"""What launch/mpirun.sh needs to know of this node: `CORES MAY_BIND SINGLE_COPY PROCESSORS`.

CORES: physical cores this process may run on, or as many as a container allows the processor time
of. MAY_BIND: 0 where binding ranks to cores would be wrong: with such a limit, and where this
process may use a part of the processors only (taskset). Open MPI does not look at that: it would
bind to the first cores of the machine, those of another job perhaps. SINGLE_COPY: 1 where a process
may read another's memory, which Open MPI otherwise tries and complains about. PROCESSORS: hardware
threads that this process may run on.
"""

import ctypes
import math
import os
from pathlib import Path


def physical_cores():
    """Cores among the allowed processors, hardware threads of one core counted once."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def processor_quota():
    """Processors' worth of time the control group allows, infinity where it sets no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            folder = Path("/sys/fs/cgroup/cpu")
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return math.inf
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)


def all_processors():
    """Numbers of the processors that this control group has, as Open MPI sees them."""
    try:
        listed = Path("/sys/fs/cgroup/cpuset.cpus.effective").read_text().strip()
        ends = [(part.split("-") * 2)[:2] for part in listed.split(",")]
        return {cpu for first, last in ends for cpu in range(int(first), int(last) + 1)}
    except (OSError, ValueError):
        return set(range(os.cpu_count() or 1))


def may_read_sibling():
    """Whether process_vm_readv works between two processes, as ranks of one node are."""

    class Iovec(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    read = getattr(ctypes.CDLL(None), "process_vm_readv", None)
    if read is None:
        return False
    source, target = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
    local, remote = (Iovec(ctypes.addressof(buffer), 8) for buffer in (target, source))
    reader = os.fork()
    if reader == 0:
        # The child reads from its parent, which is no more allowed than reading from a sibling.
        copied = read(os.getppid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        os._exit(0 if copied == 8 else 1)
    return os.waitpid(reader, 0)[1] == 0


cores = physical_cores()
limited = processor_quota() < cores
if limited:
    cores = max(1, math.floor(processor_quota()))
may_bind = not limited and os.sched_getaffinity(0) == all_processors()
print(cores, int(may_bind), int(may_read_sibling()), len(os.sched_getaffinity(0)))
