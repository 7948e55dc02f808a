"""Where the numbers of a run go beside metrics.jsonl: TensorBoard, and the loggers."""

import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from ba_dist.config import Config, override
from ba_dist.errors import ConfigError
from ba_dist.recipes import recipe
from ba_dist.rules.layout import Layout
from ba_dist.run import loggers, record
from ba_dist.run.metrics import Metrics
from ba_dist.run.names import numbers

# --- TensorBoard ----------------------------------------------------------------------------------


def events_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def value(events, tag):
    """The last value of a scalar."""
    return tf.make_ndarray(events.Tensors(tag)[-1].tensor_proto).item()


def test_training_and_validation_are_one_chart(tmp_path):
    metrics = Metrics(tmp_path)
    config = override(recipe("quickstart"), {"batch_size": 32, "checkpoint_every": 7})
    metrics.start(record.settings(config, Layout(1, 2, 32)), "val_top1")
    metrics.board.images({"copies/sample 3, coat": np.zeros((4, 8, 1), np.float32)})
    metrics.write("step", 5, loss=0.5, accuracy=0.75, name="x", flag=True)
    metrics.write("epoch", 5, epoch=0, loss=0.6, val_loss=0.25, val_top1=0.125)
    metrics.close()
    train, validation = (events_of(tmp_path / "tensorboard" / s) for s in ("train", "validation"))
    assert (value(train, "loss"), value(validation, "loss")) == (0.5, 0.25)
    assert (value(train, "accuracy"), value(validation, "accuracy")) == (0.75, 0.125)
    assert value(train, "epoch_loss") == pytest.approx(0.6)
    assert not {"name", "flag", "epoch_val_loss"} & set(train.Tags()["tensors"])
    assert "copies/sample 3, coat" in train.Tags()["tensors"]


def test_the_tab_of_hyperparameters_has_the_run(tmp_path):
    from tensorboard.plugins.hparams import metadata

    metrics = Metrics(tmp_path)
    config = override(recipe("quickstart"), {"batch_size": 32, "checkpoint_every": 7})
    metrics.start(record.settings(config, Layout(1, 2, 32)), "val_top1")
    metrics.close()
    events = events_of(tmp_path / "tensorboard")
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    session = metadata.parse_session_start_info_plugin_data(content).hparams
    assert session["batch_size"].number_value == 32 and session["multiplicity"].number_value == 2
    assert session["checkpoint_every"].number_value == 7  # not as the recipe has it
    assert session["lr"].string_value == "0:0.2,5:0" and session["flip"].bool_value
    assert "keep_checkpoints" not in session
    content = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    (metric,) = metadata.parse_experiment_plugin_data(content).metric_infos
    assert (metric.name.tag, metric.name.group) == ("accuracy", "validation")


def test_settings_of_a_recipe_of_one_s_own():
    settings = record.settings(Config("mine"), Layout(1, 1, 64))
    assert settings["recipe"] == "mine" and settings["dataset"] == "fashion_mnist"


def test_names():
    values = {"loss": 1, "val_loss": 2.0, "val_top1": 3, "ok": True, "who": "rank 3", "n": None}
    assert numbers("epoch", values) == {
        **{"train/epoch_loss": 1, "validation/loss": 2.0, "validation/accuracy": 3}
    }
    assert numbers("step", {"loss": 1}) == {"train/loss": 1}


# --- loggers that fail ----------------------------------------------------------------------------


class Recorder:
    """Keeps what it gets; fails, hangs or leaves in one of its methods."""

    def __init__(self, fault=None, act=None):
        self.seen, self.fault, self.act = [], fault, act
        self._do("make")

    def _do(self, method, *values):
        self.seen.append((method, *values))
        if method == self.fault:
            self.act()

    def start(self, config):
        self._do("start", config)

    def log(self, event, step, values):
        self._do("log", event, step, values)

    def close(self, summary):
        self._do("close", summary)


def run(make, steps=3):
    """What is said about a logger while a short run uses it."""
    said = []
    guarded = loggers.Guarded("mine", make, said.append)
    guarded.start({"batch_size": 4})
    for step in range(steps):
        guarded.log("step", step, {"loss": 1.0})
    guarded.close({"steps": steps})
    return said


def test_a_logger_gets_everything_in_order():
    recorder = Recorder()
    assert run(lambda: recorder) == []
    steps = [("log", "step", step, {"loss": 1.0}) for step in range(3)]
    assert recorder.seen[1:] == [("start", {"batch_size": 4}), *steps, ("close", {"steps": 3})]


@pytest.mark.parametrize("fault", ["make", "start", "log", "close"])
@pytest.mark.parametrize("act", [lambda: 1 // 0, lambda: sys.exit(3)], ids=["error", "exit"])
def test_a_logger_that_fails_is_told_of_once(fault, act):
    (line,) = run(lambda: Recorder(fault, act))
    assert line.startswith("warning: --logger mine failed: ")
    assert line.endswith("; training goes on without it")
    assert "ZeroDivisionError" in line or "SystemExit" in line


@pytest.mark.parametrize("fault", ["make", "start", "log", "close"])
def test_a_logger_that_hangs_is_left_behind(monkeypatch, fault):
    monkeypatch.setattr(loggers, "_PATIENCE", 0.2)
    ever, begun = threading.Event(), time.monotonic()
    (line,) = run(lambda: Recorder(fault, ever.wait))
    assert "has not ended within" in line and time.monotonic() - begun < 5
    ever.set()


def test_a_logger_that_is_late_is_given_up(monkeypatch):
    monkeypatch.setattr(loggers, "_WAITING", 5)
    ever = threading.Event()
    (line,) = run(lambda: Recorder("start", ever.wait), steps=20)
    assert "mine is 5 events late" in line
    ever.set()


# --- which one ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("mlflow", "mlflow-skinny")])
def test_a_package_that_is_missing(monkeypatch, name, package):
    monkeypatch.setattr(loggers, "find_spec", lambda module: None)
    with pytest.raises(ConfigError, match=f"--logger {name} needs .* pip install {package}$"):
        loggers.find(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", "choose from wandb, mlflow, or name a MODULE:FUNCTION"),
        ("json:", "MODULE:FUNCTION"),
        ("no_such_module:make", "ModuleNotFoundError.*PYTHONPATH"),
        ("json:make", "AttributeError"),
    ],
)
def test_a_logger_that_is_not_there(name, message):
    with pytest.raises(ConfigError, match=message):
        loggers.find(name)


def test_a_logger_of_one_s_own(tmp_path, monkeypatch):
    (tmp_path / "my_logger.py").write_text("def make(run_dir):\n    return run_dir\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert loggers.find("my_logger:make")(tmp_path) == tmp_path


# --- real ones, where they are installed ----------------------------------------------------------


def two_jobs(name, folder):
    """A run that is stopped after two steps and goes on."""
    said = []
    for first, summary in ((1, None), (3, {"val_top1": 0.5, "input": {"mode": "cooperative"}})):
        guarded = loggers.Guarded(name, lambda: loggers.find(name)(folder), said.append)
        guarded.start({"recipe": "quickstart", "batch_size": 64, "group_size": None})
        for step in (first, first + 1):
            guarded.log("step", step, {"epoch": 0, "loss": 1 / step, "grad_norm": float("nan")})
        guarded.log("epoch", first + 1, {"epoch": 0, "loss": 0.6, "val_top1": 0.5})
        guarded.close(summary)
    return said


def test_mlflow_in_files(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert two_jobs("mlflow", tmp_path) == []
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("quickstart")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["batch_size"] == "64"
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(s, 1 / s) for s in (1, 2, 3, 4)]
    assert found.data.metrics["validation/accuracy"] == 0.5


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert two_jobs("wandb", tmp_path) == []
    jobs = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert {job.stem for job in jobs} == {f"run-{(tmp_path / 'wandb-run').read_text()}"}
    # W&B's own process writes it, a moment after `finish` has returned.
    end = time.monotonic() + 30
    while b"validation/accuracy" not in jobs[-1].read_bytes() and time.monotonic() < end:
        time.sleep(0.05)
    assert b"validation/accuracy" in jobs[-1].read_bytes()
