"""Collectives, shared memory and messages among some of the ranks."""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ba_dist.comm.launcher import joined
from ba_dist.comm.shared_memory import Bytes, SharedMemory, lack, measure, view
from ba_dist.errors import UserError, agreed

T = TypeVar("T")

# MPI counts what is sent, and its offsets, in 32 bits.
LARGEST_MESSAGE = 2**30


class Channel:
    """Some of the ranks, with a communicator that nobody else uses.

    Methods are collective unless they say otherwise: all ranks of the channel call them, in the
    same order.

    Args:
        communicator: of mpi4py.
    """

    def __init__(self, communicator: Any):
        self._mpi = communicator
        self.rank: int = communicator.Get_rank()
        self.size: int = communicator.Get_size()
        self.bytes_sent = 0
        self._posts: list[tuple[Any, npt.NDArray[np.float64]]] = []  # buffers live until sent

    def broadcast(self, array: npt.NDArray[Any], root: int = 0) -> npt.NDArray[Any]:
        """The root's array on every rank; `array` has its shape and dtype, and is overwritten."""
        if self.rank == root and self.size > 1:
            self.bytes_sent += array.nbytes
        assert array.flags.c_contiguous
        content = array.reshape(-1).view(np.uint8)
        for start in range(0, content.nbytes, LARGEST_MESSAGE):
            self._mpi.Bcast(content[start : start + LARGEST_MESSAGE], root=root)
        return array

    def gather_all(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """[size, …]: the arrays of all ranks, which have the same shape and dtype."""
        out = np.empty((self.size, *array.shape), array.dtype)
        mine = np.ascontiguousarray(array)
        _wait(self._mpi.Iallgather(mine, out))
        return out

    def sum(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The sum of the arrays of all ranks, [n] of the same dtype each; `array` becomes it."""
        from mpi4py import MPI

        assert array.flags.c_contiguous and array.ndim == 1
        step = LARGEST_MESSAGE // array.itemsize
        for start in range(0, array.size if self.size > 1 else 0, step):
            _wait(self._mpi.Iallreduce(MPI.IN_PLACE, array[start : start + step]))
        return array

    def concatenate(self, part: Bytes, counts: npt.NDArray[np.int64]) -> Bytes:
        """The bytes of all ranks, one rank after the other; rank r gives counts[r] of them."""
        from mpi4py import MPI

        if self.size == 1:
            return part
        out = np.empty(int(counts.sum()), np.uint8)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        if out.nbytes <= LARGEST_MESSAGE:
            self.bytes_sent += part.nbytes
            self._mpi.Allgatherv(part, [out, counts, offsets[:-1], MPI.BYTE])
            return out
        out[offsets[self.rank] : offsets[self.rank + 1]] = part
        for rank in range(self.size):
            self.broadcast(out[offsets[rank] : offsets[rank + 1]], rank)
        return out

    def share_object(self, value: Any, root: int = 0) -> Any:
        """A small Python object (text, numbers) of the root, on every rank."""
        return self._mpi.bcast(value, root=root)

    def gather_objects(self, value: T) -> list[T]:
        """Small Python objects of all ranks, in order of rank, on every rank."""
        result: list[T] = self._mpi.allgather(value)
        return result

    def shared_bytes(self, size: int) -> Bytes:
        """Memory of `size` bytes that all ranks of the channel see; they must be on one node.

        Raises:
            UserError: on all ranks, when the node has no room for it.
        """
        from mpi4py import MPI

        if self.size == 1:
            return np.empty(size, np.uint8)
        self._claim_room(size)
        window = MPI.Win.Allocate_shared(size if self.rank == 0 else 0, 1, comm=self._mpi)
        _WINDOWS.append(window)
        memory = view(window, 0, size)
        if self.rank == 0:
            memory[:] = 0  # takes the pages, so that the next `lacks_room` sees them gone
        self.barrier()
        return memory

    def lacks_room(self, size: int) -> str:
        """Why the node cannot hold `size` bytes more of shared memory; empty if it can."""
        free, total = self.gather_all(np.array(measure())).min(axis=0)
        return lack(size, int(free), int(total))

    def _claim_room(self, size: int) -> None:
        if complaint := self.lacks_room(size):
            world = joined()
            # Only where the channel is the whole world do all ranks raise it.
            everywhere = world is not None and world.world_size == self.size
            raise agreed(UserError(complaint)) if everywhere else UserError(complaint)

    @cached_property
    def on_one_node(self) -> bool:
        """Whether all ranks of the channel share memory; the first time it is collective."""
        node = on_this_node(self._mpi)
        here = bool(node.Get_size() == self.size)
        node.Free()
        return here

    def by_node(self) -> "ByNode | None":
        """The ranks of the channel by node and seat; None where nodes have different numbers of
        them. Collective."""
        node = Channel(on_this_node(self._mpi))
        seats = self.gather_all(np.array([node.rank, node.size]))
        if (seats[:, 1] != node.size).any():
            node.free()
            return None
        columns = [np.flatnonzero(seats[:, 0] == seat).tolist() for seat in range(node.size)]
        return ByNode(node, Channel(self._mpi.Split(node.rank, self.rank)), columns)

    def shared_memory(self, size: int) -> SharedMemory:
        """`size` bytes of every rank that all of them can see; they must be on one node.

        Raises:
            UserError: on all ranks, when the node has no room for it.
        """
        from mpi4py import MPI

        self._claim_room(size * self.size)
        window = MPI.Win.Allocate_shared(size, 1, comm=self._mpi)
        window.Lock_all(MPI.MODE_NOCHECK)
        return SharedMemory(window, size, self.size)

    def barrier(self) -> None:
        """Returns when every rank has called it."""
        _wait(self._mpi.Ibarrier())

    def duplicate(self) -> "Channel":
        """The same ranks on a communicator of its own; collective."""
        return Channel(self._mpi.Dup())

    def free(self) -> None:
        """Gives the communicator back; collective."""
        self._mpi.Free()

    def post(self, rank: int, numbers: npt.NDArray[np.float64]) -> None:
        """Sends a few numbers to one rank, without waiting; not collective."""
        self._posts = [post for post in self._posts if not post[0].Test()]
        self._posts.append((self._mpi.Isend(numbers, dest=rank), numbers))

    def send_and_time(self, array: Bytes, rank: int) -> float:
        """Seconds until another rank, which calls `receive_timed`, has received all of this."""
        begun = time.perf_counter()
        self._mpi.Send(array, dest=rank)
        self._mpi.recv(source=rank)
        return time.perf_counter() - begun

    def receive_timed(self, array: Bytes, rank: int) -> None:
        """Receives what another rank sends by `send_and_time`, and answers that it is here."""
        self._mpi.Recv(array, source=rank)
        self._mpi.send(None, dest=rank)

    def received(self) -> list[tuple[int, npt.NDArray[np.float64]]]:
        """(rank, numbers) of what was posted to this rank and has arrived; not collective."""
        from mpi4py import MPI

        found: list[tuple[int, npt.NDArray[np.float64]]] = []
        status = MPI.Status()
        while self._mpi.Iprobe(status=status):
            numbers = np.empty(status.Get_count(MPI.DOUBLE))
            self._mpi.Recv(numbers, source=status.Get_source())
            found.append((status.Get_source(), numbers))
        return found


@dataclass(frozen=True)
class ByNode:
    """The ranks of a channel by node and seat: each node has one of them at every seat.

    Args:
        node: those on this rank's node, in order of seats.
        across: those at this rank's seat, one of each node.
        columns: for each seat the ranks, of the whole channel, that are there, as `across` has
            them.
    """

    node: Channel
    across: Channel
    columns: list[list[int]]


def on_this_node(communicator: Any) -> Any:
    """The communicator of those ranks that share this one's memory; collective."""
    from mpi4py import MPI

    return communicator.Split_type(MPI.COMM_TYPE_SHARED)


def _wait(request: Any) -> None:
    """Waits for ranks that may be much later, and sleeps meanwhile.

    MPI libraries spin while they wait. In a reader thread that would take the core from training.
    """
    pause = 1e-5
    while not request.Test():
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


_LONGEST_PAUSE = 5e-4  # seconds


# Shared windows live as long as the process: freeing one is collective, and a rank that fails would
# not take part.
_WINDOWS: list[Any] = []
