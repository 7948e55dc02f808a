"""Faults that tests put into a run where they cannot be caused from outside.

    --inject nan@5:1            the inputs of step 5 on rank 1 are NaN
    --inject raise@5:1          an exception on rank 1 before step 5
    --inject split@5:1          the weights of rank 1 are changed before step 5
    --inject slow-compute@5:1:2   from step 5 on rank 1 takes 2 seconds more for each
    --inject slow-input@5:1:2     from its 5th record on rank 1 takes 2 seconds more for each
    --inject die-reading@5:1      SIGKILL to rank 1 while it reads its 5th record

Several are separated by commas. Steps and records count from 1, in this process.
"""

import os
import re
import signal
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ba_dist.data.batch import Batch
from ba_dist.data.sources import Source
from ba_dist.errors import ConfigError

KINDS = ("nan", "raise", "split", "slow-compute", "slow-input", "die-reading")
_FORM = re.compile(r"([a-z-]+)@(\d+):(\d+)(?::(\d+(?:\.\d+)?))?")


class InjectedFault(Exception):
    """What `raise` raises."""


@dataclass(frozen=True)
class Fault:
    """One fault: what, at which step or record, on which rank, for how many seconds."""

    kind: str
    at: int
    rank: int
    seconds: float = 0.0


def parse(text: str) -> list[Fault]:
    """The faults of `--inject`.

    Raises:
        ConfigError: with the expected form.
    """
    faults = []
    for part in filter(None, text.split(",")):
        match = _FORM.fullmatch(part)
        if match is None or match[1] not in KINDS:
            raise ConfigError(
                f"--inject is {part!r}; expected FAULT@STEP:RANK or FAULT@STEP:RANK:SECONDS, with"
                f" one of {', '.join(KINDS)}"
            )
        faults.append(Fault(match[1], int(match[2]), int(match[3]), float(match[4] or 0)))
    return faults


class Injector:
    """The faults of one rank.

    Args:
        faults: the faults of all ranks.
        rank: this rank.
    """

    def __init__(self, faults: list[Fault], rank: int):
        self._faults = [fault for fault in faults if fault.rank == rank]

    def before_step(self, step: int, batch: Batch, weights: Any) -> Batch:
        """Applies the faults of a step, and returns the batch to train on.

        Args:
            step: counted from 1.
            batch: this rank's batch.
            weights: variables, of which `split` changes the first.
        """
        for fault in self._faults:
            if fault.kind == "slow-compute" and step >= fault.at:
                time.sleep(fault.seconds)
            if step == fault.at and fault.kind == "raise":
                raise InjectedFault(f"injected before step {step}")
            if step == fault.at and fault.kind == "split":
                weights[0].assign(weights[0].value * (1 + 1e-6))
            if step == fault.at and fault.kind == "nan":
                inputs = {n: _spoilt(tensor) for n, tensor in batch.inputs.items()}
                batch = replace(batch, inputs=inputs)
        return batch

    def source(self, source: Source) -> Source:
        """The source, with the faults of reading."""
        faults = [f for f in self._faults if f.kind in ("slow-input", "die-reading")]
        return _FaultySource(source, faults) if faults else source


def _spoilt(array: Any) -> Any:
    """Not a number in every place of pixels and fractions; integers stay."""
    array = np.asarray(array)
    fraction = array.dtype == np.uint8 or array.dtype.kind == "f"
    return np.full(array.shape, np.nan, np.float32) if fraction else array


class _FaultySource:
    """A source that is slow from a record on, or kills the process at a record."""

    def __init__(self, source: Source, faults: list[Fault]):
        self._source, self._faults = source, faults
        self._lock, self._records = threading.Lock(), 0

    def read(self, sample_id: int) -> bytes:
        with self._lock:
            self._records += 1
            number = self._records
        for fault in self._faults:
            if fault.kind == "slow-input" and number >= fault.at:
                time.sleep(fault.seconds)
            if fault.kind == "die-reading" and number == fault.at:
                os.kill(os.getpid(), signal.SIGKILL)
        record: bytes = self._source.read(sample_id)
        return record

    def __len__(self) -> int:
        return len(self._source)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)
