"""Measures the allocation at hand, and writes its machine file."""

import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path

import numpy as np

from ba_dist import comm as ba_comm
from ba_dist import runtime
from ba_dist.calibration.input import input_seconds
from ba_dist.calibration.network import allreduce, fitted, links
from ba_dist.calibration.steps import Line, fit, split_noise, step_seconds
from ba_dist.calibration.storage import check, storage
from ba_dist.comm import Comm
from ba_dist.config import Config, override
from ba_dist.errors import ConfigError, UserError, reason
from ba_dist.planner.machine import Network, machine_of
from ba_dist.planner.networks import NETWORKS
from ba_dist.planner.reading import threads
from ba_dist.storage import whole_file

# Shares of the seconds that may be taken; the rest is for building graphs.
_STEPS, _INPUT = 0.4, 0.1
_SMALLEST_NOISE = 1e-4
Sourced = tuple[float, str]


@dataclass(frozen=True)
class Wishes:
    """What is measured.

    Args:
        model: name of the network, one of `planner.networks.NETWORKS`.
        image_size: of its images.
        batch_sizes: instances that go through the network at once.
        precisions: of the step.
        seconds: to take, about; building each step's graph comes on top.
        storage: a folder on the filesystem that holds the data.
        files: that each rank writes there and reads.
    """

    model: str
    image_size: int
    batch_sizes: tuple[int, ...]
    precisions: tuple[str, ...]
    seconds: float
    storage: Path
    files: int = 64


def check_model(name: str) -> None:
    """Looks whether a plan can use what is measured.

    Raises:
        ConfigError: with the networks of which it can.
    """
    if name not in NETWORKS:
        raise ConfigError(
            f"--model {name}: a plan knows nothing of the size of this network; expected one of"
            f" {', '.join(NETWORKS)}"
        )


def calibrate(wishes: Wishes, output: Path) -> str:
    """Measures and writes the file on rank 0; all ranks call it.

    Returns:
        What was measured, for a person.

    Raises:
        UserError: on all ranks, where something cannot be measured or written.
    """
    comm = ba_comm.start()
    comm.together(lambda: _check_writable(output) if comm.rank == 0 else None)
    comm.together(lambda: check(wishes.storage))
    tf = comm.together(lambda: runtime.prepare(comm.node.rank, comm.node.size, comm.cores))
    comm.together(comm.start_horovod)
    device = "gpu" if tf.config.list_logical_devices("GPU") else "cpu"
    parts = _measure(comm, wishes, device)
    text = render(f"{socket.gethostname()}, {_shape(comm)}", device, parts, comm.world_size)
    comm.together(lambda: _write(output, text) if comm.rank == 0 else None)
    return text


def _shape(comm: Comm) -> str:
    nodes = len(set(comm.hosts))
    return f"{nodes} node{'s' * (nodes > 1)} of {comm.node.size} rank{'s' * (comm.node.size > 1)}"


def _measure(comm: Comm, wishes: Wishes, device: str) -> dict[str, dict[str, Sourced]]:
    """Table → key → (number, source)."""
    parts: dict[str, dict[str, Sourced]] = {"node": _node(comm)}
    sizes = len(set(wishes.batch_sizes))
    cases = len(wishes.precisions) * len(wishes.batch_sizes)
    noises = []
    for precision in wishes.precisions:
        line, noise = _line(comm, wishes, precision, _STEPS * wishes.seconds / cases)
        noises.append(noise)
        said = f"measured: batches of {', '.join(map(str, wishes.batch_sizes))}"
        said += f", within {line.off:.0%} of the line" if sizes > 1 else ""
        own = NETWORKS[wishes.model].side
        if own != wishes.image_size:  # a plan takes the line for images of the network's own size
            line = replace(line, instance=line.instance * (own / wishes.image_size) ** 2)
            said += f"; {wishes.image_size} pixels, scaled to {own}"
        parts[f"step.{wishes.model}.{precision}"] = {
            "fixed": (line.fixed, said if sizes > 1 else "assumed: one batch size"),
            "instance": (line.instance, said),
        }
    alone, common = np.max(noises, axis=0).tolist()
    told = "measured" if comm.world_size > 1 else "measured on one rank: own and common noise"
    missing = "assumed: one rank alone cannot tell it from its own"
    parts["step"] = {
        "overhead": (0.0, "assumed: nothing; `ba-dist plan --run` shows what a run takes beyond"),
        "noise": (min(1.0, max(alone, _SMALLEST_NOISE)), told),
        "drift": (min(1.0, common), told if comm.world_size > 1 else missing),
    }
    mine = np.array(input_seconds(_INPUT * wishes.seconds))
    decode, augment, spread = np.median(comm.world.gather_all(mine), axis=0).tolist()
    parts["input"] = {
        "decode": (decode, "measured: one core a rank, JPEG of 500x375"),
        "augment": (augment, "measured: one core a rank, random-resized crop to 224 and flip"),
        "noise": (min(1.0, spread), "measured: rounds of 32 records"),
    }
    parts["network"] = _network(comm)
    parts["storage"] = _storage(comm, wishes, int(parts["node"]["cores"][0]))
    parts["failures"] = {
        "node": (1.6e8, "assumed: five years"),
        "restart": (300.0, "assumed"),
        "checkpoint": (1.0, "assumed: rank 0 copies the state, a thread writes it"),
    }
    return parts


def _node(comm: Comm) -> dict[str, Sourced]:
    import psutil

    ranks = comm.node.size
    memory = psutil.virtual_memory().available
    free = "assumed: nine tenths of the host's free memory; for a GPU set its own"
    return {
        "ranks": (ranks, "of this allocation"),
        "cores": (
            cores_of_a_rank(comm.node.gather_objects(os.sched_getaffinity(0))),
            "that this allocation may use, by its ranks",
        ),
        "memory": (0.9 * memory / ranks, free),
        "cache": (0.3 * memory, "assumed: a third of the free memory"),
    }


def cores_of_a_rank(allowed: Sequence[AbstractSet[int]]) -> int:
    """A rank's share of the node's cores, whether each is bound to its own or may use all.

    Args:
        allowed: the processors that each rank of the node may use.
    """
    return max(1, len(frozenset[int]().union(*allowed)) // len(allowed))


def _line(
    comm: Comm, wishes: Wishes, precision: str, budget: float
) -> tuple[Line, tuple[float, float]]:
    """(t(n), (own, common) noise of the largest batch) in one precision."""
    changes = {"model": wishes.model, "image_size": wishes.image_size, "precision": precision}
    config = override(Config("calibrate"), changes)
    medians, noise = [], (0.0, 0.0)
    for size in sorted(wishes.batch_sizes):
        found = step_seconds(comm, config, size, budget)
        medians.append(float(np.median(found)))
        noise = split_noise(found)
    return fit(sorted(wishes.batch_sizes), medians), noise


def _network(comm: Comm) -> dict[str, Sourced]:
    """Single messages, and of the kind of link that the allreduce crosses, the allreduce."""
    seen = links(comm)
    made = Network(*seen.get("inside", (5e-7, 1e10)), *seen.get("between", (5e-6, 1e10)))
    told = {
        kind: "measured: single messages" if kind in seen else "assumed: there is no such link here"
        for kind in ("inside", "between")
    }
    if seen:
        kind = "between" if "between" in seen else "inside"
        nodes = len(set(comm.hosts))
        made = fitted(allreduce(comm), nodes, -(-comm.world_size // nodes), made)
        alone = f"{seen[kind][0] * 1e6:.3g} us, {seen[kind][1] / 1e9:.3g} GB/s"
        told[kind] = (
            f"measured: Horovod's sum of {comm.world_size} ranks (single messages: {alone})"
        )
    return {
        field.name: (
            getattr(made, field.name),
            told["inside" if field.name.startswith("inside") else "between"],
        )
        for field in fields(made)
    }


def _storage(comm: Comm, wishes: Wishes, cores: int) -> dict[str, Sourced]:
    seen = storage(comm, wishes.storage, wishes.files, threads(cores))
    told = f"measured: {wishes.files} files of 115 kB a rank in {wishes.storage.name or '/'}"
    least = f"assumed: at least, what {comm.world_size} rank(s) opened while they read"
    if seen.cached:
        told = f"assumed: {told}, but that is memory"
    return {
        "latency": (seen.latency, told),
        "client": (seen.client, told),
        "together": (seen.together, told),
        "opens": (seen.opens, least),
    }


def render(name: str, device: str, parts: dict[str, dict[str, Sourced]], ranks: int) -> str:
    """The machine file, which is read again to see that it is one.

    Args:
        name: of the machine.
        device: `gpu` or `cpu`.
        parts: table → key → (number, source).
        ranks: that measured.
    """
    order = sorted(parts, key=lambda t: (_ORDER.index(t.split(".")[0]), t.count(".")))
    lines = [
        f"# Written by `ba-dist calibrate` on {date.today()}, with {ranks} rank(s).",
        "# SI units: seconds and bytes; each number is beside its source.",
        f"name = {_quoted(name)}",
        f"device = {_quoted(device)}",
        'allreduce = "best"',
    ]
    for table in order:
        lines += ["", f"[{table}]", *_lines(parts[table])]
    text = "\n".join(lines) + "\n"
    machine_of(text)
    return text


_ORDER = ("node", "step", "input", "network", "storage", "failures")


def _lines(part: dict[str, Sourced]) -> Iterator[str]:
    for key, (number, source) in part.items():
        shown = f"{number}" if isinstance(number, int) else f"{number:.6g}"
        yield f"{key} = [{shown}, {_quoted(source)}]"


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)


def _check_writable(path: Path) -> None:
    """Before the minutes of measuring, not after them; leaves nothing."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def _write(path: Path, text: str) -> None:
    try:
        whole_file.write(path, text)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"--output {path} cannot be written: {reason(error)}")
