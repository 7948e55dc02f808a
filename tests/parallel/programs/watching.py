"""Rank 0 waits for the others, who make progress for much longer than a stall may last."""

import threading

from ba_dist.comm import start
from ba_dist.health.watchdog import Watchdog

TIMEOUT = 2.0

comm = start()
watchdog = Watchdog(comm, warning=0.5, timeout=TIMEOUT)
watchdog.beat("evaluating", 7)
if comm.rank:
    done = threading.Event()  # nobody sets it: the batches of a slow evaluation
    for _ in range(20):
        done.wait(TIMEOUT / 5)
        watchdog.beat("evaluating", 7)
comm.world.barrier()
watchdog.close()
print(f"rank {comm.rank} has waited", flush=True)
