"""How TensorFlow runs in this process: silent, on its own cores and device, repeatable."""

import gc
import importlib
import importlib.abc
import importlib.util
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from ba_dist.errors import UserError

# Instances that go through the network at once, unless a person says otherwise. On CPU one ghost
# batch stays in the cache and keeps the graph small; a GPU wants more of them to be busy.
MICROBATCH = {"CPU": 32, "GPU": 256}

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
    "KERAS_BACKEND": "tensorflow",
}


def quiet() -> None:
    """Hushes TensorFlow's chatter, but for errors; must come before its first import.

    What a person has set for its log stays.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logger = logging.getLogger("tensorflow")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.ERROR)
    waiting = any(isinstance(finder, _Silently) for finder in sys.meta_path)
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3" and not waiting:
        sys.meta_path.insert(0, _Silently())


class _Silently(importlib.abc.MetaPathFinder):
    """Imports TensorFlow without what newer ones say before they look at their log level.

    Where it ends the process meanwhile, TF_CPP_MIN_LOG_LEVEL=0 shows why.
    """

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """How TensorFlow is to be loaded; None for all else."""
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def silently(module: ModuleType) -> None:
                with _without(rb"WARNING: All log messages before absl::Init|I0000 "):
                    execute(module)

            # This one loader alone is changed, so it keeps its class and all else that is asked of
            # it; to mypy a method is not to be assigned.
            spec.loader.exec_module = silently  # type: ignore[method-assign]
        return spec


@contextmanager
def _without(chatter: bytes) -> Iterator[None]:
    """Leaves out lines of standard error that begin so; the others come at the end."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            kept.seek(0)
            os.write(2, b"".join(line for line in kept if not re.match(chatter, line)))


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0))


def share_of(mine: frozenset[int], of_node: Sequence[frozenset[int]]) -> int:
    """How many cores are a rank's own: all where it is bound to them, else its share.

    Args:
        mine: numbers of the cores that the rank may use.
        of_node: the same for all ranks of the node.
    """
    return max(1, len(mine) // of_node.count(mine))


def prepare(local_rank: int, local_size: int, share: int, threads: int | None = None) -> Any:
    """Sets TensorFlow up for one rank and returns it.

    One GPU a rank by local rank, memory growth on; threads as the launcher says, else as many as
    the rank has cores; operations that give the same bits every time.

    Args:
        local_rank: of this rank on its node.
        local_size: ranks of the node.
        share: cores of this rank.
        threads: of an operation on the CPU, whatever the launcher says. The last bits of a gradient
            depend on their number.

    Raises:
        UserError: when a node has more ranks than GPUs.
    """
    quiet()
    if "tensorflow" not in sys.modules:
        with _left_out("matplotlib", "scipy", "sklearn"), _kept():
            importlib.import_module("keras")  # and with it TensorFlow
    import tensorflow as tf

    threads = threads or int(os.environ.get("TF_NUM_INTRAOP_THREADS", share))
    # TensorFlow refuses to be set once it is in use: in a notebook, by a second run in a process.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        # Two, also on one core: with one, TensorFlow goes through the whole backward pass before it
        # comes to any operation beside it, and the gradients would all be sent at the end.
        tf.config.threading.set_inter_op_parallelism_threads(
            int(os.environ.get("TF_NUM_INTEROP_THREADS", 2))
        )
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) == 1:
        local_rank = 0  # the launcher has given each rank its own, as devices.check looks
    elif gpus and local_rank >= len(gpus):
        raise UserError(f"this node has {len(gpus)} GPUs for {local_size} ranks; start one a GPU")
    if gpus:
        tf.config.set_visible_devices(gpus[local_rank], "GPU")
        tf.config.experimental.set_memory_growth(gpus[local_rank], True)
    tf.config.experimental.enable_op_determinism()
    tf.get_logger().setLevel("ERROR")  # else several runs in one process are warned of retracing
    return tf


def seed(number: int) -> None:
    """Seeds all random numbers that weights and dropout are drawn from, the same on every rank.

    Keras' initialisers take seeds from Python's own generator, which anything else may draw from:
    call it right before a network is built.
    """
    import keras

    keras.utils.set_random_seed(number % 2**32)


@contextmanager
def _left_out(*names: str) -> Iterator[None]:
    """Keras imports these where they are found, for plots and wrappers: a second on every rank."""
    absent: dict[str, Any] = {name: None for name in names if name not in sys.modules}
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextmanager
def _kept() -> Iterator[None]:
    """Python's collector leaves alone what is made meanwhile, now and later: it stays anyway."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def default_microbatch() -> int:
    """Instances that go through the network at once on this rank's device."""
    import tensorflow as tf

    return MICROBATCH["GPU" if tf.config.list_logical_devices("GPU") else "CPU"]


def notice(precision: str) -> str:
    """What a person should know of this precision on this machine; empty if nothing."""
    import tensorflow as tf

    if precision != "bf16" or tf.config.list_logical_devices("GPU"):
        return ""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    if "avx512_bf16" in flags or "amx_bf16" in flags or "flags" not in flags:
        return ""
    return "this CPU has no bf16 instructions: --precision bf16 is slower than fp32 here"


def versions() -> dict[str, str]:
    """Of Python and the packages that decide what is computed."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in (
        "ba_dist",
        "tensorflow",
        "tensorflow-cpu",
        "keras",
        "horovod",
        "mpi4py",
        "numpy",
    ):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
