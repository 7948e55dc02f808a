"""Programs that also get the numbers of a run: Weights & Biases, MLflow, or one of a person's own.

All of it happens on rank 0, in a thread of its own, and without a network unless the program's own
variables (WANDB_MODE, MLFLOW_TRACKING_URI) ask for it.
"""

import importlib
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ba_dist.errors import ConfigError
from ba_dist.run.names import numbers
from ba_dist.storage import whole_file

_WAITING = 1000  # events that wait for a logger before it is given up
_PATIENCE = 20.0  # seconds that the end of a run waits for it


class Logger(Protocol):
    """What `--logger MODULE:FUNCTION` has to give when it is called with the run directory."""

    def start(self, config: Mapping[str, Any]) -> None:
        """A job of the run begins, with these values; a run that goes on begins again."""
        ...

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Something is written to metrics.jsonl.

        Args:
            event: step, epoch or straggler.
            step: steps that are done.
            values: as in metrics.jsonl, but a number that is not finite is itself, not null.
        """
        ...

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """The job ends; the summary is None where the run has not come to its end."""
        ...


Maker = Callable[[Path], Logger]


class WandB:
    """Weights & Biases, in `RUN/wandb`; `wandb sync` sends it on from there.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: Path):
        self._folder = run_dir

    def start(self, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # which would use the network
        import wandb

        self._run = wandb.init(
            dir=self._folder,
            project=os.environ.get("WANDB_PROJECT", "ba_dist"),
            name=self._folder.name,
            id=_id_of_run(self._folder / "wandb-run", lambda: uuid.uuid4().hex[:8]),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(config),
            settings=wandb.Settings(
                silent=True, console="off", save_code=False, disable_git=True, x_disable_stats=True
            ),
        )

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        self._run.log(numbers(event, values), step=step)

    def close(self, summary: Mapping[str, Any] | None) -> None:
        self._run.summary.update(dict(summary or {}))
        self._run.finish(exit_code=0 if summary else 1)


class MLflow:
    """MLflow, in `RUN/mlruns`, or at MLFLOW_TRACKING_URI.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: Path):
        self._folder = run_dir

    def start(self, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # Files are all that mlflow-skinny can write; MLflow 3 asks whether they are meant.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        here = (self._folder / "mlruns").resolve().as_uri()
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", here))

        def begin() -> str:
            name = f"{config['recipe']}"
            found = self._client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self._client.create_experiment(name)
            run: str = self._client.create_run(experiment, run_name=self._folder.name).info.run_id
            params = [Param(name, f"{value}") for name, value in config.items()]
            self._client.log_batch(run, params=params)
            return run

        self._run = _id_of_run(self._folder / "mlflow-run", begin)
        self._client.update_run(self._run, status="RUNNING")

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        now = round(1000 * time.time())
        named = numbers(event, values).items()
        metrics = [self._metric(name, value, now, step) for name, value in named]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, summary: Mapping[str, Any] | None) -> None:
        self._client.set_terminated(self._run, "FINISHED" if summary else "KILLED")


# Name → (package that it needs, what pip calls that, class).
_KNOWN: dict[str, tuple[str, str, Maker]] = {
    "wandb": ("wandb", "wandb", WandB),
    "mlflow": ("mlflow", "mlflow-skinny", MLflow),
}


def find(name: str) -> Maker:
    """Run directory → logger.

    Args:
        name: wandb, mlflow or MODULE:FUNCTION.

    Raises:
        ConfigError: when there is none of this name, or its package is not installed.
    """
    if name in _KNOWN:
        module, package, maker = _KNOWN[name]
        if find_spec(module) is None:
            raise ConfigError(
                f"--logger {name} needs a package that is not installed: pip install {package}"
            )
        return maker
    module, _, function = name.partition(":")
    if not module or not function:
        known = ", ".join(_KNOWN)
        raise ConfigError(f"--logger is {name!r}; choose from {known}, or name a MODULE:FUNCTION")
    try:
        found: Maker = getattr(importlib.import_module(module), function)
    except Exception as error:  # of a person's own module, which may raise anything
        raise ConfigError(
            f"--logger {name} cannot be loaded: {type(error).__name__}: {error}; the folder of"
            f" {module} must be in PYTHONPATH, and have a function {function}(run_dir)"
        ) from None
    return found


class Guarded:
    """A logger in a thread of its own: one that raises or hangs neither ends nor delays training.

    Args:
        name: of the logger.
        make: makes it.
        say: shows a line.
    """

    def __init__(self, name: str, make: Callable[[], Logger], say: Callable[[str], None]):
        self._name, self._make, self._say = name, make, say
        self._given_up = False
        self._calls: queue.Queue[tuple[Any, ...]] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="logger", daemon=True)
        self._thread.start()

    def start(self, config: Mapping[str, Any]) -> None:
        """See `Logger`."""
        self._call("start", dict(config))

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """See `Logger`."""
        self._call("log", event, step, dict(values))

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """See `Logger`; waits for it, but not for ever."""
        self._call("close", summary)
        if not self._given_up:
            self._thread.join(_PATIENCE)
            if self._thread.is_alive():
                self._give_up(f"has not ended within {_PATIENCE:.0f} s")

    def _call(self, *call: Any) -> None:
        if not self._given_up:
            try:
                self._calls.put_nowait(call)
            except queue.Full:
                self._give_up(f"is {_WAITING} events late")

    def _work(self) -> None:
        try:
            logger = self._make()
            method = ""
            while method != "close":
                method, *arguments = self._calls.get()
                getattr(logger, method)(*arguments)
        except BaseException as error:  # also an exit, which would end this thread without a word
            self._give_up(f"failed: {type(error).__name__}: {error}")

    def _give_up(self, why: str) -> None:
        if not self._given_up:
            self._given_up = True
            self._say(f"warning: --logger {self._name} {why}; training goes on without it")


def _id_of_run(path: Path, begin: Callable[[], str]) -> str:
    """The number of this run in the logger's own files, kept in the run directory."""
    if not path.exists():
        whole_file.write(path, begin())
    return path.read_text()
