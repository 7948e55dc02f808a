"""The first two ranks say that they drive the same GPU, others their own; all are refused."""

from ba_dist.comm import start
from ba_dist.errors import UserError
from ba_dist.health import devices

comm = start()
number = max(comm.rank, 1)
devices.mine = lambda: devices.Device(f"0000:{number:02}:00.0", f"{number}")
try:
    devices.check(comm)
except UserError as error:
    told = comm.world.gather_objects((f"{error}", error.agreed))
    assert told == [told[0]] * comm.world_size
    if comm.rank == 0:
        print(*told[0])
