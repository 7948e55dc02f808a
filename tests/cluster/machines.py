"""Finds the processes of test clusters among all of this machine; nothing is kept in files."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

# The first process of a namespace has to reap orphans, which bash does while it waits.
FIRST_PROCESS = ("bash", "-c", "sleep infinity & wait", "ba_dist-cluster")


@dataclass(frozen=True)
class Machine:
    """A node or a controller that is up.

    Args:
        folder: of its cluster.
        name: of it.
        pid: of its first process, as this machine counts.
        namespace: its host name's, which all of its processes share.
    """

    folder: str
    name: str
    pid: int
    namespace: str


@dataclass(frozen=True)
class Process:
    """One of this machine: `name` as the kernel has it, `words` of its command line."""

    pid: int
    name: str
    words: list[str]
    namespace: str


def everything() -> Iterator[Process]:
    """Every process of this machine."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().decode(errors="replace")
            name = (path / "comm").read_text().strip()
            namespace = str((path / "ns" / "uts").readlink())
        except OSError:
            continue  # it has ended meanwhile
        yield Process(int(path.name), name, line.split("\0")[:-1], namespace)


def machines() -> list[Machine]:
    """Those of all clusters that are up."""
    found = []
    for process in everything():
        words = process.words
        if tuple(words[:-2]) == FIRST_PROCESS and _is_first(process.pid):
            found.append(Machine(words[-2], words[-1], process.pid, process.namespace))
    return found


def _is_first(pid: int) -> bool:
    """Whether a process is number 1 of its namespace, and not on its way to becoming it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    return numbers.split()[-1] == "1"


def inside(namespaces: Collection[str]) -> list[Process]:
    """The processes that are in one of these namespaces."""
    return [process for process in everything() if process.namespace in namespaces]


def outside(names: Collection[str]) -> list[Process]:
    """The processes of these names that belong to no test cluster."""
    ours = {machine.namespace for machine in machines()}
    return [it for it in everything() if it.name in names and it.namespace not in ours]
