"""A machine as one TOML file: every number beside its source. SI units: seconds and bytes.

    fixed = [0.030, "fit of table 5"]        # what a number is, and where it comes from

A source that begins with `assumed` marks a number that nobody has measured there.
"""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from ba_dist.errors import ConfigError, reason

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRECISIONS = ("fp32", "bf16", "fp16", "fp64")
ALLREDUCES = ("best", "ring", "tree", "rabenseifner", "hierarchical")


@dataclass(frozen=True)
class Node:
    """What a node has.

    Args:
        ranks: ranks a node.
        cores: cores of a rank, which read, decode and augment.
        memory: bytes that the network of a rank may take.
        cache: bytes of a node that keep what was read from storage.
    """

    ranks: int
    cores: int
    memory: float
    cache: float


@dataclass(frozen=True)
class Step:
    """What every step costs beside its instances.

    Args:
        overhead: seconds a step that neither computing nor the messages explain.
        noise: relative deviation of a rank's step, each rank and step for itself.
        drift: relative deviation of a step on all ranks together.
    """

    overhead: float
    noise: float
    drift: float


@dataclass(frozen=True)
class StepTime:
    """t(n) = fixed + instance · n: seconds of computing a microbatch of n instances."""

    fixed: float
    instance: float

    def seconds(self, instances: int) -> float:
        """t(n)."""
        return self.fixed + self.instance * instances


@dataclass(frozen=True)
class Input:
    """What an image costs on the way.

    Args:
        decode: seconds of a core to decode a JPEG of 500x375.
        augment: seconds of a core to make an instance of it.
        noise: relative deviation of a rank's reading and decoding for a step.
    """

    decode: float
    augment: float
    noise: float


@dataclass(frozen=True)
class Network:
    """Seconds before the first byte, and bytes a second of one direction.

    Args:
        inside_latency: between two ranks of a node.
        inside_bandwidth: the same.
        latency: between two nodes.
        bandwidth: of a node's link, which its ranks share.
    """

    inside_latency: float
    inside_bandwidth: float
    latency: float
    bandwidth: float


@dataclass(frozen=True)
class Storage:
    """The filesystem that all nodes share.

    Args:
        latency: seconds to open a file, or to begin to read a record.
        client: bytes a second that a node gets alone.
        together: bytes a second that all nodes get together.
        opens: files a second that it opens for all nodes together.
    """

    latency: float
    client: float
    together: float
    opens: float


@dataclass(frozen=True)
class Failures:
    """What ends a job.

    Args:
        node: mean seconds between two failures of one node.
        restart: seconds from a failure until training goes on.
        checkpoint: seconds that training stands still for a checkpoint.
    """

    node: float
    restart: float
    checkpoint: float


@dataclass(frozen=True)
class Machine:
    """Everything that a prediction needs of a machine.

    Args:
        name: for people.
        device: `gpu`, or `cpu` where computing takes the cores that also make the input.
        allreduce: which of `ALLREDUCES` sums; best is the fastest for the size.
        step_times: network → precision → its line.
        sources: `network.latency` → where the number comes from.
    """

    name: str
    device: str
    allreduce: str
    node: Node
    step: Step
    input: Input
    network: Network
    storage: Storage
    failures: Failures
    step_times: Mapping[str, Mapping[str, StepTime]]
    sources: Mapping[str, str]

    @property
    def assumed(self) -> list[str]:
        """The numbers that nobody has measured, in the order of the file."""
        return [key for key, source in self.sources.items() if source.startswith("assumed")]


_PARTS: dict[str, type[Any]] = {
    "node": Node,
    "step": Step,
    "input": Input,
    "network": Network,
    "storage": Storage,
    "failures": Failures,
}
_WORDS: dict[str, tuple[str, ...]] = {"device": ("gpu", "cpu"), "allreduce": ALLREDUCES}
# All others must be more than 0; these may be 0.
_MAY_BE_ZERO = {
    *("node.cache", "step.overhead", "step.noise", "step.drift", "input.noise", "input.decode"),
    *("input.augment", "storage.latency", "failures.restart", "failures.checkpoint"),
    *("network.latency", "network.inside_latency"),
}
_NOISES = {"step.noise", "step.drift", "input.noise"}


def read_machine(path: Path) -> Machine:
    """Reads a machine file.

    Raises:
        ConfigError: naming the file, the key, what was found and what was expected.
    """
    try:
        return machine_of(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConfigError(f"--machine {path} cannot be read: {why}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--machine {path} is not TOML: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"--machine {path}: {error}") from None


def machine_of(text: str) -> Machine:
    """A machine from the text of its file.

    Raises:
        ConfigError: naming the key, what was found and what was expected.
        tomllib.TOMLDecodeError: where it is not TOML.
    """
    tree = tomllib.loads(text)
    sources: dict[str, str] = {}
    _check_keys("", tree, ["name", *_WORDS, *_PARTS])
    parts: dict[str, Any] = {}
    for name, kind in _PARTS.items():
        keys = [field.name for field in fields(kind)]
        part = _table(name, tree[name])
        if name == "step":  # it also holds the networks
            part = {key: value for key, value in part.items() if not isinstance(value, dict)}
        _check_keys(f"{name}.", part, keys)
        values = {key: _number(f"{name}.{key}", part[key], sources) for key in keys}
        whole = {"ranks": round, "cores": round}
        parts[name] = kind(**{k: whole.get(k, float)(value) for k, value in values.items()})
    times = dict(_step_times(tree["step"], sources))
    if not times:
        raise ConfigError(
            "step holds no network; expected a table such as [step.resnet50.fp32] with fixed and"
            " instance"
        )
    words: dict[str, Any] = {key: _word(key, tree[key], known) for key, known in _WORDS.items()}
    return Machine(name=_text("name", tree["name"]), **words, **parts, step_times=times,
                   sources=sources)  # fmt: skip


def _step_times(
    step: Mapping[str, Any], sources: dict[str, str]
) -> Iterator[tuple[str, dict[str, StepTime]]]:
    for name, table in step.items():
        if not isinstance(table, dict):
            continue
        path = f"step.{name}"
        if unknown := [key for key in table if key not in PRECISIONS]:
            raise ConfigError(
                f"{path}.{unknown[0]} is unknown; expected one of {', '.join(PRECISIONS)}"
            )
        if not table:
            raise ConfigError(f"{path} is empty; expected one of {', '.join(PRECISIONS)}")
        lines = {}
        for precision, line in table.items():
            key = f"{path}.{precision}"
            _check_keys(f"{key}.", _table(key, line), ["fixed", "instance"])
            fixed, instance = (
                _number(f"{key}.{part}", line[part], sources) for part in ("fixed", "instance")
            )
            lines[precision] = StepTime(fixed, instance)
        yield name, lines


def _check_keys(path: str, found: Mapping[str, Any], expected: list[str]) -> None:
    """Every key is known, and every one is there."""
    for key in found:
        if key not in expected:
            raise ConfigError(f"{path}{key} is unknown; expected {', '.join(expected)}")
    for key in expected:
        if key not in found:
            raise ConfigError(f"{path}{key} is missing; expected {_expected(path + key)}")


def _expected(key: str) -> str:
    if key in _WORDS:
        return f"one of {', '.join(_WORDS[key])}"
    if key == "name":
        return "a name for people"
    if key in _PARTS:
        names = (field.name for field in fields(_PARTS[key]))
        return f"a table [{key}] with {', '.join(names)}"
    if key in _NOISES:
        return '[NUMBER, "SOURCE"], a relative deviation from 0 to 1'
    if key in ("node.ranks", "node.cores"):
        return '[NUMBER, "SOURCE"], a whole number from 1 up'
    low = "not negative" if _may_be_zero(key) else "more than 0"
    return f'[NUMBER, "SOURCE"], {low}, in seconds or bytes'


def _may_be_zero(key: str) -> bool:
    # Also what a microbatch takes whatever its size: a fit may find none.
    return key in _MAY_BE_ZERO or (key.startswith("step.") and key.endswith(".fixed"))


def _number(key: str, found: Any, sources: dict[str, str]) -> float:
    """The number of `[number, "source"]`, checked; its source is noted."""
    wrong = ConfigError(f"{key} is {_shown(found)}; expected {_expected(key)}")
    if not isinstance(found, list) or len(found) != 2 or not isinstance(found[1], str):
        raise wrong
    number, source = found
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise wrong
    least = 0 if _may_be_zero(key) else math.ulp(0)
    if not least <= number <= sys.float_info.max or not source.strip():
        raise wrong
    if key in _NOISES and number > 1:
        raise wrong
    if key in ("node.ranks", "node.cores") and number != round(number):
        raise wrong
    sources[key] = source
    return number


def _word(key: str, found: Any, known: tuple[str, ...]) -> str:
    if found not in known:
        raise ConfigError(f"{key} is {_shown(found)}; expected one of {', '.join(known)}")
    return cast(str, found)


def _text(key: str, found: Any) -> str:
    if not isinstance(found, str) or not found:
        raise ConfigError(f"{key} is {_shown(found)}; expected {_expected(key)}")
    return found


def _table(key: str, found: Any) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise ConfigError(f"{key} is {_shown(found)}; expected a table")
    return found


def _shown(found: Any) -> str:
    text = f"{found!r}"
    return text if len(text) <= 60 else f"{text[:57]}…"
