"""When a run saves its state, and that training may go on meanwhile."""

import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ba_dist.config import Run
from ba_dist.errors import ConfigError
from ba_dist.rules.plan import Plan
from ba_dist.run import checkpoint, saving
from ba_dist.run.position import Position, from_facts


class Variable:
    """A variable whose numpy() is its own memory, as TensorFlow's may be."""

    def __init__(self, value):
        self.value = np.asarray(value)

    def numpy(self):
        return self.value


@pytest.fixture
def said():
    return []


@pytest.fixture
def saver(tmp_path, said):
    saver = saving.Saver(tmp_path, keep=2, every=5, minutes=None, say=said.append)
    yield saver
    saver.close()


def test_every_so_many_steps(saver):
    assert [step for step in range(1, 21) if saver.due(step)] == [5, 10, 15, 20]


def test_after_so_many_minutes(tmp_path, said, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    saver = saving.Saver(tmp_path, keep=2, every=1000, minutes=0.5, say=said.append)
    due = []
    for step in range(1, 31):
        now[0] += 4.0  # seconds
        if saver.due(step):
            due.append(step)
            saver.save(step, {}, {}, {})
    saver.close()
    assert due == [8, 16, 24]  # the first step after each 30 seconds


def test_what_is_written_is_the_state_when_it_was_saved(saver, tmp_path, monkeypatch):
    written, begun = threading.Event(), threading.Event()
    save = checkpoint.save

    def slow(*arguments):
        begun.set()
        assert written.wait(10)
        return save(*arguments)

    monkeypatch.setattr(saving.checkpoint, "save", slow)
    variable = Variable(np.arange(4.0))
    saver.save(5, {"a": variable}, {}, {})
    assert begun.wait(10)
    variable.value[:] = -1  # the next step, while the disk is slow
    written.set()
    saver.finish()
    assert checkpoint.newest_good(tmp_path).arrays["a"].tolist() == [0, 1, 2, 3]


def test_a_checkpoint_that_cannot_be_written_is_told_and_training_goes_on(
    saver, said, tmp_path, monkeypatch
):
    saver.save(5, {"a": Variable(1.0)}, {}, {})
    saver.finish()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(saving.checkpoint, "save", full)
        saver.save(10, {"a": Variable(2.0)}, {}, {})
        saver.finish()
    (line,) = said
    assert saver.lost and "no checkpoint of step 10" in line and "No space left" in line
    assert checkpoint.newest_good(tmp_path).step == 5
    saver.save(15, {"a": Variable(3.0)}, {}, {})
    saver.finish()
    assert checkpoint.newest_good(tmp_path).step == 15 and len(said) == 1 and not saver.lost


def test_a_step_without_a_number_spoils_no_mean():
    position = Position()
    for loss in (1.0, float("nan"), 3.0):
        position.count(loss, {"accuracy": 0.5})
    assert position.epoch_means() == {"loss": 2.0, "accuracy": 0.5}
    position.begin_epoch()
    assert position.epoch_means() == {"loss": 0.0}


def test_the_position_of_a_checkpoint_of_version_0_1_0_is_read():
    """It knew the one metric of classification by name."""
    old = {"step": 7, "epoch_steps": 3, "epoch_loss": 3.0, "epoch_accuracy": 1.5, "seconds": 2.0}
    assert from_facts(old).epoch_means() == {"loss": 1.0, "accuracy": 0.5}
    new = Position(step=7, epoch_steps=3, epoch_loss=3.0, epoch_metrics={"accuracy": 1.5})
    assert from_facts(asdict(new)) == new


@pytest.mark.parametrize(
    ("run", "asked", "works"),
    [
        (Run(epochs=1), "--epochs 1", "--epochs 2"),
        (Run(epochs=9, steps=200), "--steps 200", "--steps 243"),
    ],
)
def test_a_run_that_is_further_than_it_is_asked_to_go(run, asked, works):
    plan = Plan(156, run.steps or 156 * run.epochs)
    with pytest.raises(ConfigError) as caught:
        saving.check_not_beyond(Path("runs/x"), plan, 243, run)
    assert f"step 243, beyond step {plan.total_steps}, the last of {asked};" in str(caught.value)
    assert f"Give {works} or more" in str(caught.value)
    for steps in (243, 312):
        saving.check_not_beyond(Path("runs/x"), Plan(156, steps), 243, run)


def test_the_best_result_so_far():
    position = Position()
    found = []
    for step, result in enumerate([0.5, 0.5, float("nan"), None, 0.7, 0.6]):
        position.step = step
        found.append(position.is_best(result))
    assert found == [True, False, False, False, True, False]
    assert (position.best, position.best_step) == (0.7, 4)
    assert from_facts({"step": 7}).best is None  # of a version that kept none


def test_a_best_one_that_is_written_does_not_hide_a_newest_one_that_was_not(
    saver, said, tmp_path, monkeypatch
):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(saving.checkpoint, "save", full)
        saver.save(5, {"a": Variable(1.0)}, {}, {})
        saver.save(5, {"a": Variable(1.0)}, {}, {}, best=True)
        saver.finish()
    assert saver.lost and checkpoint.names(tmp_path) == ["best"]
    with monkeypatch.context() as patch:
        patch.setattr(saving.checkpoint, "save_best", full)
        saver.save(10, {"a": Variable(2.0)}, {}, {})
        saver.save(10, {"a": Variable(2.0)}, {}, {}, best=True)
        saver.finish()
    assert not saver.lost and "no best checkpoint, that of step 10" in said[-1]
    assert checkpoint.choose(tmp_path, "best").step == 5
