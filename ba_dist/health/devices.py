"""Which GPU each rank drives, and that no two drive the same one."""

import ctypes
import sys
from typing import NamedTuple

from ba_dist.comm import Comm
from ba_dist.errors import UserError, agreed


class Device(NamedTuple):
    """A GPU.

    Args:
        address: on the PCI bus, for people; empty where it cannot be had.
        identity: the same for two ranks only if they drive the same device; parts of a divided GPU
            (MIG) have the same address, but each its own identity. Empty where it cannot be had.
    """

    address: str
    identity: str


def check(comm: Comm) -> None:
    """Looks whether each rank has a GPU of its own; collective over the world.

    Args:
        comm: the world of ranks, after `runtime.prepare`.

    Raises:
        UserError: on all ranks, when several share one.
    """
    complaint, note = compare(comm.hosts, comm.world.gather_objects(mine()))
    if complaint:
        raise agreed(UserError(complaint))
    if note and comm.rank == 0:
        print(f"note: {note}", file=sys.stderr, flush=True)


def compare(hosts: list[str], devices: list[Device | None]) -> tuple[str, str]:
    """What is wrong, and what could not be found out, when these ranks have these GPUs.

    Args:
        hosts: of the ranks.
        devices: of the ranks; None for one without a GPU.

    Returns:
        A complaint and a note, empty where there is nothing to say.
    """
    users: dict[tuple[str, str], list[int]] = {}
    for rank, (host, device) in enumerate(zip(hosts, devices, strict=True)):
        if device is not None:
            users.setdefault((host, device.identity), []).append(rank)
    crowds = [(host, one, ranks) for (host, one), ranks in users.items() if len(ranks) > 1]
    for host, identity, ranks in crowds:
        if identity:
            return _shared(host, devices[ranks[0]], ranks, sum(1 for c in crowds if c[1]) - 1), ""
    for host, _, ranks in crowds:
        return "", (
            f"{_named(ranks)} on {host} drive GPUs whose addresses cannot be read; whether each has"
            " one of its own is not known"
        )
    return "", ""


def _shared(host: str, device: Device | None, ranks: list[int], others: int) -> str:
    address = device.address if device else ""
    more = f" ({others} more such GPUs)" if others else ""
    return (
        f"{_named(ranks)} on {host} share one GPU, {address}{more}. Start one rank a GPU: fewer"
        " ranks a node, or all GPUs of the node for every rank (CUDA_VISIBLE_DEVICES unset), or by"
        " Slurm one for each (--gpus-per-task=1)"
    )


def _named(ranks: list[int]) -> str:
    shown = ", ".join(str(rank) for rank in ranks[:8]) + (" …" if len(ranks) > 8 else "")
    return f"ranks {shown}"


def mine() -> Device | None:
    """The GPU that TensorFlow was told to take; None without one.

    The driver is asked, which makes no context: TensorFlow's own list of devices with addresses,
    `device_lib`, takes the memory of every GPU in it (tensorflow#8021).

    Source: CUDA driver API, device management: cuDeviceGetPCIBusId, cuDeviceGetUuid_v2;
        HIP runtime API: hipDeviceGetPCIBusId.
    """
    import tensorflow as tf

    visible = tf.config.get_visible_devices("GPU")
    if not visible:
        return None
    number = int(visible[0].name.rpartition(":")[2])
    return _by_cuda(number) or _by_hip(number) or Device("", "")


def _by_cuda(number: int) -> Device | None:
    device, address = ctypes.c_int(), ctypes.create_string_buffer(32)
    identity = ctypes.create_string_buffer(16)
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), number):
            return None
        if cuda.cuDeviceGetPCIBusId(address, len(address), device):
            return None
        if cuda.cuDeviceGetUuid_v2(identity, device):
            return None
    except (OSError, AttributeError):  # no such library, or an older one
        return None
    return Device(address.value.decode(), identity.raw.hex())


def _by_hip(number: int) -> Device | None:
    address = ctypes.create_string_buffer(32)
    try:
        if ctypes.CDLL("libamdhip64.so").hipDeviceGetPCIBusId(address, len(address), number):
            return None
    except (OSError, AttributeError):
        return None
    return Device(address.value.decode(), address.value.decode())
