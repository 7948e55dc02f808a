"""The world of ranks: MPI and Horovod behind one small object.

Gradients go through Horovod, everything else through mpi4py. mpi4py is imported and initialised
first, with MPI_THREAD_MULTIPLE, because the reader exchanges records in a thread of its own.
"""

import atexit
import ctypes
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from ba_dist.comm.channel import Channel
from ba_dist.comm.installed import import_horovod
from ba_dist.comm.leaving import abort, end_job
from ba_dist.comm.links import link_seconds
from ba_dist.errors import UserError
from ba_dist.rules.layout import Layout
from ba_dist.runtime import quiet, share_of

T = TypeVar("T")


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
        """The ranks of this node, which share its memory."""
        from mpi4py import MPI

        return Channel(self._mpi.Split_type(MPI.COMM_TYPE_SHARED))

    @cached_property
    def leaders(self) -> Channel | None:
        """The first ranks of all nodes; None on other ranks. Collective when it is first used."""
        from mpi4py import MPI

        first = self.node.rank == 0
        chosen = self._mpi.Split(0 if first else MPI.UNDEFINED, self.rank)
        return Channel(chosen) if first else None

    @cached_property
    def cores(self) -> int:
        """Cores that this rank has to itself; collective over the node when it is first used."""
        mine = frozenset(os.sched_getaffinity(0))
        return share_of(mine, self.node.gather_objects(mine))

    @cached_property
    def hosts(self) -> list[str]:
        """The host of every rank; collective over the world when it is first used."""
        return self.world.gather_objects(self.host)

    def group(self, layout: Layout) -> Channel:
        """The ranks of this rank's group, on a new communicator; collective over the world."""
        return Channel(self._mpi.Split(layout.group(self.rank), self.rank))

    def lane(self, layout: Layout) -> Channel:
        """The ranks of this rank's lane, one of each group; collective over the world."""
        return Channel(self._mpi.Split(layout.lane(self.rank), self.rank))

    def link_seconds(self, size: int = 2**18) -> npt.NDArray[np.float64]:
        """[W] seconds that `size` bytes take from each rank to the next; collective."""
        return link_seconds(self.world, size)

    def sum(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The sum over all ranks, in float64 (whole numbers to 2^53 are exact)."""
        mine = np.atleast_1d(np.asarray(values, np.float64))
        return self.world.gather_all(mine).sum(axis=0)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; collective over the world."""
        return bool(self.world.gather_all(np.array(flag)).any())

    def together(self, work: Callable[[], T]) -> T:
        """Does `work` on every rank; collective over the world.

        Raises:
            UserError: on all ranks, the first rank's failure, when `work` raised one on any rank.
        """
        failure: tuple[type[UserError], str] | None = None
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

    def start_horovod(self, fused: bool = False) -> None:
        """Initialises Horovod over the same ranks, once.

        Args:
            fused: whether it joins the messages that happen to be ready at the same time. With
                their sizes the order of sums changes from step to step (horovod#1548).

        Raises:
            UserError: when Horovod was built for another TensorFlow or without MPI, or sees another
                world.
        """
        if self._horovod is not None:
            return
        horovod = import_horovod()
        if not horovod.mpi_built():
            raise UserError(
                "Horovod was built without MPI; build it with MPI: `make setup` in a clone, else"
                " docs/install.md"
            )
        if not fused:
            os.environ |= {"HOROVOD_FUSION_THRESHOLD": "0", "HOROVOD_AUTOTUNE": "0"}
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

    def alltoall(self, tensor: Any, name: str) -> Any:
        """[W, …]: row r is the row of rank r that is meant for this rank, by Horovod.

        Args:
            tensor: [W, …], row r is for rank r.
            name: of the message, the same on every rank.
        """
        return self._horovod.alltoall(tensor, name=name) if self.world_size > 1 else tensor

    def allgather(self, tensor: Any, name: str) -> Any:
        """The tensors of all ranks, one behind the other along the first axis, by Horovod."""
        return self._horovod.allgather(tensor, name=name) if self.world_size > 1 else tensor

    def meet(self, seconds: float) -> bool:
        """Whether all ranks call this within so many seconds; whoever waits sleeps."""
        request, deadline = self._mpi.Ibarrier(), time.monotonic() + seconds
        while not request.Test():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


# Components of Open MPI that are left out, unless these variables are set.
_OPEN_MPI = {
    # Shared windows use the shared-memory component; the one for UCX prints warnings on every rank.
    "OMPI_MCA_osc": "^ucx",
    # ofi is for one-sided messages between nodes, which are not used here, and slept 1 s at each
    # start on a single node (Open MPI 5.0.11). openib, the old transport of Open MPI 4, cannot
    # serve two threads.
    "OMPI_MCA_btl": "^ofi,openib",
}


def start() -> Comm:
    """Joins the world of ranks; from here on an uncaught exception on any rank ends the job.

    TensorFlow is silent when it is imported after this.

    Raises:
        UserError: when MPI cannot serve several threads at a time.
    """
    quiet()
    for name, value in _OPEN_MPI.items():
        os.environ.setdefault(name, value)
    _look_symbols_up()
    from mpi4py import MPI

    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise UserError(
            f"MPI gives thread level {MPI.Query_thread()}, MPI_THREAD_MULTIPLE"
            f" ({MPI.THREAD_MULTIPLE}) is needed; on Cray set MPICH_MAX_THREAD_SAFETY=multiple"
        )
    comm = Comm(MPI.COMM_WORLD)
    _end_job_on_exceptions(comm)
    return comm


def _look_symbols_up() -> None:
    """Finds the functions that set-up's MPI calls; mpi4py's wheel leaves that for their first call.

    By then TensorFlow has brought an hwloc of its own. MPI_Finalize of an MPICH that takes the
    system's would free by one what the other has made, and the rank end with a segmentation fault.
    """
    if library := os.environ.get("MPI4PY_LIBMPI"):  # launch/horovod.sh
        with suppress(OSError):  # mpi4py says what is wrong with it
            ctypes.CDLL(library, mode=os.RTLD_NOW)


_TOGETHER_SECONDS = 10.0  # in which all ranks come to raise an error that they have agreed on


def _end_job_on_exceptions(comm: Comm) -> None:
    """Makes an uncaught exception on one rank end the job, so that no other rank waits for it.

    What a person can repair is one message without a trace, once where all ranks raise it.
    """

    def report(kind: type[BaseException], error: BaseException | None, trace: Any) -> NoReturn:
        text = "".join(traceback.format_exception(kind, error, trace))
        print(f"\nrank {comm.rank} on {comm.host} failed:\n{text}", file=sys.stderr, flush=True)
        abort(1)

    def report_of_main(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not isinstance(error, UserError):
            report(kind, error, trace)
        first = error.agreed and comm.rank == 0
        if first:
            print(f"ba-dist: {error}", file=sys.stderr, flush=True)
        # One rank alone may have asked for what cannot work: then the others do not come.
        if error.agreed and comm.meet(_TOGETHER_SECONDS):
            sys.exit(1)
        end_job("the other ranks go on" if first else f"{error}", 1)

    sys.excepthook = report_of_main
    threading.excepthook = lambda args: report(args.exc_type, args.exc_value, args.exc_traceback)
