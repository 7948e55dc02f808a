"""Examines the environment: a line for each check, and what to do where it fails."""

import importlib
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass

from ba_dist import comm as communication
from ba_dist import runtime
from ba_dist.cluster.home import set_up
from ba_dist.comm.launcher import launched
from ba_dist.errors import UserError
from ba_dist.storage.cache import DATA_VARIABLE, cache_dir, data_dir

_PYTHON = ((3, 10), (3, 13))
_TENSORFLOW = ("2.18", "2.19", "2.20", "2.21")  # those of requirements/tensorflow-*.txt


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        subject: what was examined.
        text: what was found.
        advice: what to do; empty where nothing is wrong.
    """

    subject: str
    text: str
    advice: str = ""


def examine(given_dir: str | None) -> tuple[str, bool]:
    """Examines every rank; collective over the world.

    Returns:
        The report, with equal lines of several ranks shown once, and whether nothing is wrong.
    """
    checks: list[Callable[[], list[Finding]]] = [_python, _tensorflow, _mpi, _horovod, _devices]
    findings = [finding for check in checks for finding in _guarded(check)]
    findings += _data(given_dir)
    everyone = [findings]
    if _mpi_is_there():
        world = communication.start()
        findings += _guarded(lambda: _ranks(world))
        everyone = world.world.gather_objects(findings)
    return _report(everyone), not any(f.advice for found in everyone for f in found)


def _mpi_is_there() -> bool:
    try:
        communication.library()
    except (ImportError, RuntimeError):
        return False
    return True


def _guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except (UserError, ImportError, OSError, RuntimeError) as error:
        name = check.__name__.strip("_")
        return [Finding(name, f"{type(error).__name__}: {error}".splitlines()[0], set_up())]


def _report(everyone: list[list[Finding]]) -> str:
    """A line for each different finding, with the ranks that have it if not all do."""
    ranks: dict[Finding, list[int]] = {}
    for rank, findings in enumerate(everyone):
        for finding in findings:
            ranks.setdefault(finding, []).append(rank)
    lines = []
    for finding, having in sorted(ranks.items(), key=lambda item: _order(everyone, item[0])):
        where = "" if len(having) == len(everyone) else f"  (ranks {_spans(having)})"
        status = "problem" if finding.advice else "ok"
        lines.append(f"{status:8} {finding.subject:12} {finding.text}{where}")
        if finding.advice:
            lines.append(f"{'':8} {'':12} -> {finding.advice}")
    return "\n".join(lines)


def _order(everyone: list[list[Finding]], finding: Finding) -> int:
    return next(found.index(finding) for found in everyone if finding in found)


def _spans(numbers: list[int]) -> str:
    """0-3,7 for [0, 1, 2, 3, 7]."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


def _python() -> list[Finding]:
    good = _PYTHON[0] <= sys.version_info[:2] <= _PYTHON[1]
    return [
        Finding(
            "Python",
            f"{platform.python_version()} ({sys.executable})",
            "" if good else f"use Python 3.10 to 3.13: {set_up('PYTHON=python3.11')}",
        )
    ]


def _tensorflow() -> list[Finding]:
    tensorflow = importlib.import_module("tensorflow")
    version = tensorflow.__version__
    good = version.rpartition(".")[0] in _TENSORFLOW
    advice = f"Horovod is known to work with TensorFlow {', '.join(_TENSORFLOW)}: {set_up()}"
    return [Finding("TensorFlow", version, "" if good else advice)]


def _mpi() -> list[Finding]:
    name, level = communication.library()
    advice = "" if level == 3 else "set MPICH_MAX_THREAD_SAFETY=multiple, or use another MPI"
    levels = ("single", "funneled", "serialized", "multiple")
    return [Finding("MPI", f"{name}, threads: {levels[level]}", advice)]


def _horovod() -> list[Finding]:
    found = communication.horovod_build()
    parts = [name for name in ("MPI", "NCCL", "Gloo") if found[name]]
    text = f"{found['version']}, built with {' '.join(parts) or 'nothing'}"
    return [Finding("Horovod", text, "" if found["MPI"] else f"build it with MPI: {set_up()}")]


def _devices() -> list[Finding]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus and not communication.horovod_build()["NCCL"]:
        return [
            Finding("GPUs", f"{len(gpus)}, but Horovod has no NCCL", set_up("GPU=1")),
        ]
    return [Finding("GPUs", str(len(gpus) or "none, the CPU trains"))]


def _ranks(world: communication.Comm) -> list[Finding]:
    launch = launched()
    if launch is not None and launch.world_size != world.world_size:
        text = f"the launcher started {launch.world_size}, MPI joined {world.world_size}"
        advice = "use the mpirun of this MPI, or srun with an --mpi that it speaks (pmix, pmi2 …)"
        return [Finding("ranks", text, advice)]
    here, cores = world.node.size, runtime.cores()
    share = world.cores  # asked for on all ranks, as it is collective
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    threads = int(given) if given.isdecimal() else share
    findings = [Finding("ranks", f"{world.world_size}, of which {here} on {world.host}")]
    in_node = os.cpu_count() or 1
    crowded = here * threads > in_node
    advice = "start fewer ranks a node, or give each fewer threads" if crowded else ""
    text = f"{threads} thread(s) per rank, {cores} core(s) to run on, {in_node} in the node"
    return [*findings, Finding("cores", text, advice)]


def _data(given_dir: str | None) -> list[Finding]:
    path = data_dir(given_dir)
    if path is None:
        cache = cache_dir()
        return [
            Finding("data", f"{cache} (the cache; --data-dir or ${DATA_VARIABLE} name another)")
        ]
    if not path.is_dir():
        return [Finding("data", f"{path} does not exist", "make it, or name another folder")]
    if not os.access(path, os.R_OK | os.X_OK):
        return [Finding("data", f"{path} cannot be read", "change its permissions")]
    return [Finding("data", str(path))]
