"""MPI and Horovod behind one small object; the only module that imports either.

Gradients go through Horovod, everything else through mpi4py. mpi4py is imported and initialised
first, with MPI_THREAD_MULTIPLE, because the reader exchanges records in a thread of its own.
"""

import atexit
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import cached_property
from typing import Any, NoReturn, TextIO

import numpy as np
import numpy.typing as npt

from ba_dist.comm.launcher import Launch, launched
from ba_dist.comm.shared_memory import Bytes, SharedMemory, lack, measure, view
from ba_dist.errors import UserError, agreed
from ba_dist.rules.layout import Layout

# MPI counts and places what is sent by 32 bits.
LARGEST_MESSAGE = 2**30


class Channel:
    """Collectives over some of the ranks, on a communicator that nobody else uses.

    Every method is collective: all ranks of the channel call it, in the same order.
    """

    def __init__(self, communicator: Any):
        self._mpi = communicator
        self.rank: int = communicator.Get_rank()
        self.size: int = communicator.Get_size()
        self.bytes_sent = 0
        self._posts: list[tuple[Any, npt.NDArray[np.float64]]] = []  # buffers live until sent

    def broadcast(self, array: npt.NDArray[Any], root: int = 0) -> npt.NDArray[Any]:
        """The root's array on every rank; `array` has its shape and dtype everywhere."""
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

    def concatenate(self, part: Bytes, counts: npt.NDArray[np.int64]) -> Bytes:
        """The bytes of all ranks behind one another; rank r gives counts[r] of them."""
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

    def gather_objects(self, value: Any) -> list[Any]:
        """Small Python objects of all ranks, in order of rank, on every rank."""
        result: list[Any] = self._mpi.allgather(value)
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
            memory[:] = 0  # takes the room, so that whoever asks next sees it gone
        self.barrier()
        return memory

    def lacks_room(self, size: int) -> str:
        """Why the node cannot hold `size` bytes more of shared memory; empty if it can."""
        free, total = self.gather_all(np.array(measure())).min(axis=0)
        return lack(size, int(free), int(total))

    def _claim_room(self, size: int) -> None:
        if complaint := self.lacks_room(size):
            world = joined()
            # The ranks of other nodes do not know of it.
            everywhere = world is not None and world.world_size == self.size
            raise agreed(UserError(complaint)) if everywhere else UserError(complaint)

    @cached_property
    def on_one_node(self) -> bool:
        """Whether all ranks of the channel share memory; the first time it is collective."""
        from mpi4py import MPI

        node = self._mpi.Split_type(MPI.COMM_TYPE_SHARED)
        here = bool(node.Get_size() == self.size)
        node.Free()
        return here

    def shared_memory(self, size: int) -> SharedMemory:
        """`size` bytes of every rank that all can see; they must be on one node.

        Raises:
            UserError: on all ranks, when the node has no room for it.
        """
        from mpi4py import MPI

        self._claim_room(size * self.size)
        window = MPI.Win.Allocate_shared(size, 1, comm=self._mpi)
        window.Lock_all(MPI.MODE_NOCHECK)
        return SharedMemory(window, size, self.size)

    def barrier(self) -> None:
        """Returns when every rank has come here."""
        _wait(self._mpi.Ibarrier())

    def duplicate(self) -> "Channel":
        """The same ranks on a communicator of its own; collective."""
        return Channel(self._mpi.Dup())

    def free(self) -> None:
        """Gives the communicator back; collective."""
        self._mpi.Free()

    def post(self, rank: int, numbers: npt.NDArray[np.float64]) -> None:
        """Sends a few numbers to one rank and does not wait; not collective."""
        self._posts = [post for post in self._posts if not post[0].Test()]
        self._posts.append((self._mpi.Isend(numbers, dest=rank), numbers))

    def send_through(self, array: Bytes, rank: int) -> float:
        """Seconds until another rank has all of this, which calls `receive_through`."""
        begun = time.perf_counter()
        self._mpi.Send(array, dest=rank)
        self._mpi.recv(source=rank)
        return time.perf_counter() - begun

    def receive_through(self, array: Bytes, rank: int) -> None:
        """Takes what another rank sends by `send_through`, and says so."""
        self._mpi.Recv(array, source=rank)
        self._mpi.send(None, dest=rank)

    def received(self) -> list[tuple[int, npt.NDArray[np.float64]]]:
        """(rank, numbers) of what was posted to this rank and has arrived; not collective."""
        from mpi4py import MPI

        found, status = [], MPI.Status()
        while self._mpi.Iprobe(status=status):
            numbers = np.empty(status.Get_count(MPI.DOUBLE))
            self._mpi.Recv(numbers, source=status.Get_source())
            found.append((status.Get_source(), numbers))
        return found


def _wait(request: Any) -> None:
    """Waits for ranks that may come much later, and sleeps meanwhile.

    MPI libraries spin while they wait: a reader thread would take the core from the training.
    """
    pause = 1e-5
    while not request.Test():
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


_LONGEST_PAUSE = 5e-4  # seconds


# Shared windows live as long as the process: freeing one is collective, which a failing rank skips.
_WINDOWS: list[Any] = []


class Comm:
    """The world of ranks. Make it with `start()`."""

    def __init__(self, world: Any):
        self._mpi = world
        self.world = Channel(world.Dup())
        self.rank = self.world.rank
        self.world_size = self.world.size
        self.host = socket.gethostname()
        self._horovod: Any = None

    @cached_property
    def node(self) -> Channel:
        """The ranks that share this node's memory."""
        from mpi4py import MPI

        return Channel(self._mpi.Split_type(MPI.COMM_TYPE_SHARED))

    @cached_property
    def leaders(self) -> Channel | None:
        """The first ranks of all nodes, None on others; the first time it is collective."""
        from mpi4py import MPI

        first = self.node.rank == 0
        chosen = self._mpi.Split(0 if first else MPI.UNDEFINED, self.rank)
        return Channel(chosen) if first else None

    @cached_property
    def hosts(self) -> list[str]:
        """The host of every rank; the first time it is collective over the world."""
        return self.world.gather_objects(self.host)

    def group(self, layout: Layout) -> Channel:
        """The ranks of this rank's group, on a new communicator; collective over the world."""
        return Channel(self._mpi.Split(layout.group(self.rank), self.rank))

    def link_seconds(self, size: int = 2**18) -> npt.NDArray[np.float64]:
        """[W] seconds that `size` bytes take from each rank to the next; collective.

        No rank sends and receives at a time, so that a link is measured alone.
        """
        mine, buffer = np.inf, np.zeros(size, np.uint8)
        world, rank = self.world_size, self.rank
        # Ranks of even number send first; the last one of an odd world has a turn of its own.
        turn_of = [2 if world % 2 and r == world - 1 else r % 2 for r in range(world)]
        for turn in (0, 1, 2) * 2:
            self.world.barrier()
            if turn_of[rank] == turn:
                mine = min(mine, self.world.send_through(buffer, (rank + 1) % world))
            elif turn_of[rank - 1] == turn:
                self.world.receive_through(buffer, (rank - 1) % world)
        return self.world.gather_all(np.array(mine))

    def sum(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The sum over all ranks, in float64 (whole numbers to 2^53 are exact)."""
        mine = np.atleast_1d(np.asarray(values, np.float64))
        return self.world.gather_all(mine).sum(axis=0)

    def any(self, flag: bool) -> bool:
        """Whether any rank says so; collective over the world."""
        return bool(self.world.gather_all(np.array(flag)).any())

    def together(self, work: Callable[[], Any]) -> Any:
        """Does `work` on every rank; when it fails on any, every rank raises the first failure."""
        result, failure = None, None
        try:
            result = work()
        except UserError as error:
            failure = (type(error), f"{error}")
        failures = self.world.gather_objects(failure)
        for rank, found in enumerate(failures):
            if found is not None:
                kind, text = found
                everywhere = all(other == found for other in failures)
                raised: UserError = kind(text if everywhere else f"rank {rank}: {text}")
                raised.agreed = True
                raise raised
        return result

    def start_horovod(self) -> None:
        """Initialises Horovod over the same ranks.

        Raises:
            UserError: when Horovod was not built with MPI, or sees another world.
        """
        import horovod.tensorflow as horovod

        if not horovod.mpi_built():
            raise UserError("Horovod was built without MPI; run `make setup` to build it with MPI")
        horovod.init()
        if (horovod.rank(), horovod.size()) != (self.rank, self.world_size):
            raise UserError(
                f"Horovod sees rank {horovod.rank()} of {horovod.size()}, MPI sees rank"
                f" {self.rank} of {self.world_size}; both must be built with the same MPI"
            )
        self._horovod = horovod
        # Horovod's own hook runs too late: its thread must stop before mpi4py ends MPI.
        atexit.register(horovod.shutdown)

    def allreduce(self, tensor: Any, name: str) -> Any:
        """The sum of a tensor over the world by Horovod, inside or outside a tf.function."""
        if self.world_size == 1:
            return tensor
        return self._horovod.allreduce(tensor, op=self._horovod.Sum, name=name)

    def abort(self, status: int = 1) -> NoReturn:
        """Ends the whole job now, wherever the other ranks are."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._mpi.Abort(status)
        os._exit(status)


# Components of Open MPI that are left out, unless a person says otherwise.
_OPEN_MPI = {
    # Shared windows use the shared-memory component; the one for UCX complains on every rank.
    "OMPI_MCA_osc": "^ucx",
    # ofi, for one-sided messages between nodes, which nobody sends, slept 1 s at each start on a
    # single node (Open MPI 5.0.11); openib, the old transport of Open MPI 4, cannot serve two
    # threads.
    "OMPI_MCA_btl": "^ofi,openib",
}


def start() -> Comm:
    """Joins the world of ranks; from here on an uncaught exception on any rank ends the job.

    Raises:
        UserError: when MPI cannot serve several threads at a time.
    """
    for name, value in _OPEN_MPI.items():
        os.environ.setdefault(name, value)
    from mpi4py import MPI

    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise UserError(
            f"MPI gives thread level {MPI.Query_thread()}, MPI_THREAD_MULTIPLE"
            f" ({MPI.THREAD_MULTIPLE}) is needed; on Cray set MPICH_MAX_THREAD_SAFETY=multiple"
        )
    comm = Comm(MPI.COMM_WORLD)
    _end_job_on_exceptions(comm)
    return comm


def _end_job_on_exceptions(comm: Comm) -> None:
    """A rank that dies of an exception takes the job with it, so that nobody waits for it."""

    def report(kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        print(f"\nrank {comm.rank} on {comm.host} failed:\n{text}", file=sys.stderr, flush=True)
        comm.abort()

    sys.excepthook = report
    threading.excepthook = lambda args: report(args.exc_type, args.exc_value, args.exc_traceback)


def joined() -> Launch | None:
    """This rank's place in a world of several that MPI has started; None before, or alone."""
    if "mpi4py.MPI" in sys.modules:
        from mpi4py import MPI

        if MPI.Is_initialized() and not MPI.Is_finalized() and MPI.COMM_WORLD.Get_size() > 1:
            return Launch(MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size())
    return None


def ranks() -> Launch | None:
    """This rank's place as MPI knows it, before MPI is started as the launcher says."""
    return joined() or launched()


def leave_together(message: str, status: int, stream: TextIO | None = None) -> NoReturn:
    """Every rank ends with this status, after rank 0 has printed the message once.

    A rank that left at once would have the launcher kill rank 0 before it has spoken.
    """
    launch = ranks()
    if launch is None or launch.rank == 0:
        print(message, file=stream or sys.stderr, flush=True)
    if launch is not None and launch.world_size > 1:
        from mpi4py import MPI

        MPI.COMM_WORLD.Barrier()
    sys.exit(status)


def end_job(message: str, status: int) -> NoReturn:
    """This rank alone has failed: it says so, and ends the job on all ranks, wherever they are."""
    from mpi4py import MPI

    rank, host = MPI.COMM_WORLD.Get_rank(), socket.gethostname()
    print(f"ba-dist: rank {rank} on {host}: {message}", file=sys.stderr, flush=True)
    # Nothing collective here: the others are somewhere else.
    MPI.COMM_WORLD.Abort(status)
    os._exit(status)


def library() -> tuple[str, int]:
    """(name and version of the MPI library, the thread level it gives)."""
    from mpi4py import MPI

    return MPI.Get_library_version().split(",")[0].strip("\0\n "), MPI.Query_thread()


def horovod_build() -> dict[str, Any]:
    """The version of Horovod, and whether it was built with `MPI`, `NCCL` and `Gloo`."""
    import horovod
    import horovod.tensorflow as horovod_tensorflow

    return {
        "version": horovod.__version__,
        "MPI": bool(horovod_tensorflow.mpi_built()),
        "NCCL": bool(horovod_tensorflow.nccl_built()),
        "Gloo": bool(horovod_tensorflow.gloo_built()),
    }
