"""Callbacks around those of a script, by which ranks start, measure and stop together.

What they tell each other goes through `_Meeting.meet`, which notices when ranks are not at the
same point.
"""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ba_dist.api.fit.optimizer import WorldMean, mean_of, statistics_of
from ba_dist.comm import Comm
from ba_dist.errors import ConfigError, UserError, agreed
from ba_dist.health.replicas import digest, spread
from ba_dist.models.tags import INSTANCE, carries


def callbacks(
    comm: Comm, everywhere: Iterable[Any] = (), on_rank_0: Iterable[Any] = ()
) -> list[Any]:
    """The callbacks of `fit` (and `evaluate`) on several ranks, around those of the script.

    - All weights and the optimizer's variables start as those of rank 0, also where rank 0 alone
      has loaded them; so does the first epoch (`BackupAndRestore` on rank 0).
    - Metrics at an epoch's end are those of all samples of all ranks, before any other callback
      sees them. The states of metrics are added up, which is exact for means, counts and
      confusion matrices. A number that `train_step` returns and no metric holds is a plain mean.
    - Moving statistics are averaged in the message of every step.
    - `stop_training`, set on any rank, ends all after the same step: the next one.
    - Only rank 0 shows a progress bar. During an epoch it shows rank 0's own metrics.
    - At each epoch's end weights are compared.
    - XLA is off: Horovod's allreduce is not compiled.

    Args:
        comm: what `ba_dist.start()` gave.
        everywhere: callbacks of every rank, such as EarlyStopping: they see the same metrics.
        on_rank_0: those that write, such as ModelCheckpoint. Other ranks do not wait for them.

    Returns:
        What `fit` takes as `callbacks`.
    """
    meeting = _Meeting(comm)
    own = on_rank_0 if comm.rank == 0 else ()
    return [_Before(meeting), *everywhere, *own, _After(meeting)]


class _Meeting:
    """What both callbacks know, and how ranks meet in them."""

    def __init__(self, comm: Comm):
        self.comm = comm
        self.mean: WorldMean  # of the optimizer, once training has begun

    def meet(self, where: str, given: Any) -> list[Any]:
        """What all ranks give at the same point; collective over the world.

        Raises:
            UserError: on all ranks, when they are not at the same point.
        """
        found = self.comm.world.gather_objects((where, given))
        for rank, (other, _) in enumerate(found):
            if other != found[0][0]:
                raise agreed(
                    UserError(
                        f"rank 0 {found[0][0]}, but rank {rank} {other}; give fit on every rank"
                        " the same epochs, steps, weights, and validation data or none"
                    )
                )
        return [mine for _, mine in found]

    def sum_of(self, where: str, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Float64 [n] → the sum over the ranks; collective over the world."""
        return np.sum(self.meet(where, numbers), axis=0)

    def metrics(self, where: str, model: Any) -> dict[str, float]:
        """Name → value over all samples of all ranks; their states become those of the world."""
        states = [v.value for metric in model.metrics for v in metric.variables]
        if self.comm.world_size > 1 and states:
            parts = [np.asarray(state, np.float64).reshape(-1) for state in states]
            total = self.sum_of(where, np.concatenate(parts))
            ends = np.cumsum([part.size for part in parts])[:-1]
            for state, part in zip(states, np.split(total, ends), strict=True):
                state.assign(tf.cast(part.reshape(state.shape), state.dtype))
        found: dict[str, float] = model.get_metrics_result()
        return found


class _Before(keras.callbacks.Callback):
    """Comes before the script's callbacks: what they see is the same on every rank."""

    def __init__(self, meeting: _Meeting):
        super().__init__()
        self._meeting = meeting
        self._fitting = False
        self._steps = 0  # of this epoch
        self._logs: dict[str, float] = {}  # of this epoch, over all ranks

    def set_params(self, params: Any) -> None:
        if params and self._meeting.comm.rank:
            params["verbose"] = 0  # of the progress bar, which comes later and reads the same
        super().set_params(params)

    def on_train_begin(self, logs: Any = None) -> None:
        model = self.model
        several = self._meeting.comm.world_size > 1
        if several and not self.params.get("steps"):
            raise ConfigError(
                "the length of the dataset is not known, and ranks with different lengths would"
                " wait for each other for ever; give fit steps_per_epoch"
            )
        if not model.built:
            raise ConfigError(
                "the model has no weights yet that ranks could share; begin it with"
                " keras.Input(shape), or call model.build(shape) before fit"
            )
        self._meeting.mean = mean = mean_of(model, self._meeting.comm)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        compiled = several and model.jit_compile
        if compiled:
            model.jit_compile = False
        if mean.watch(statistics_of(model)) or compiled:
            model.make_train_function(force=True)
        self._fitting = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._steps, self._logs = 0, {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._steps = batch + 1

    def on_test_begin(self, logs: Any = None) -> None:
        if self._fitting:  # an evaluation overwrites the metrics of the epoch
            self._check_steps()
            self._logs |= self._meeting.metrics("begins an evaluation", self.model)

    def on_test_end(self, logs: Any = None) -> None:
        found = self._meeting.metrics("ends an evaluation", self.model)
        if self._fitting:
            self._logs |= {f"val_{name}": value for name, value in found.items()}
        elif logs is not None:
            logs.update({name: found[name] for name in found if name in logs})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        where = f"ends epoch {epoch + 1}"
        if not self._logs:
            self._check_steps()
            self._logs = self._meeting.metrics(where, self.model)
        logs = {} if logs is None else logs
        others = [n for n in logs if n not in self._logs and isinstance(logs[n], float)]
        if others:
            total = self._meeting.sum_of(where, np.array([logs[name] for name in others]))
            self._logs |= dict(
                zip(others, (total / self._meeting.comm.world_size).tolist(), strict=True)
            )
        logs.update({name: value for name, value in self._logs.items() if name in logs})

    def on_train_end(self, logs: Any = None) -> None:
        self._fitting = False

    def _check_steps(self) -> None:
        """The others may be in the next step's message: this rank must not go on alone."""
        wanted = self.params.get("steps") or 0
        if self._steps < wanted and not self.model.stop_training:
            raise UserError(
                f"the data of rank {self._meeting.comm.rank} ended after {self._steps} of {wanted}"
                " steps of the epoch; every rank needs data for the same number of steps"
            )


class _After(keras.callbacks.Callback):
    """Comes after the script's callbacks: what one of them has done on one rank reaches all."""

    def __init__(self, meeting: _Meeting):
        super().__init__()
        self._meeting = meeting

    def on_train_begin(self, logs: Any = None) -> None:
        comm, model = self._meeting.comm, self.model
        state = self._state()
        numbers = sum(v.shape.num_elements() for v in state.values())
        where = (
            f"trains to epoch {self.params['epochs']}, {self.params['steps']} steps in each,"
            f" with {len(state)} variables of {numbers} numbers"
        )
        first = self._meeting.meet(where, getattr(model, "_initial_epoch", None))
        model._initial_epoch = first[0]
        if comm.world_size > 1:
            spread(state, comm)
        self._meeting.mean.begin()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._meeting.comm.world_size == 1:
            return
        mean = self._meeting.mean
        if self.model.stop_training:
            mean.stop.assign(1.0)
        self.model.stop_training = bool(mean.stopping.numpy() > 0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        mean = self._meeting.mean
        wish = self.model.stop_training or bool(mean.stop.numpy() > 0)
        found = self._meeting.meet(f"ends epoch {epoch + 1}", (wish, digest(self._state())))
        self.model.stop_training = any(stop for stop, _ in found)
        other = [rank for rank, (_, weights) in enumerate(found) if weights != found[0][1]]
        if other:
            raise agreed(
                UserError(
                    f"after epoch {epoch + 1} rank {other[0]} holds other weights than rank 0;"
                    " callbacks that change weights or learning rates belong on every rank"
                )
            )

    def _state(self) -> dict[str, Any]:
        """Number → variable of all that ranks hold alike; a loaded one may have another name."""
        alike = [v for v in self.model.weights if not carries(v, INSTANCE)]
        alike += self.model.optimizer.variables
        return {f"{i:06d}": v.value for i, v in enumerate(alike)}
