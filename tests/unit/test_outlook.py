"""What `train --dry-run` says, against closed forms; it starts and leaves nothing."""

import re

import keras
import pytest

from ba_dist.config import Config, override
from ba_dist.errors import ConfigError
from ba_dist.models import NETWORKS, Network
from ba_dist.reports.outlook import outlook

from .test_cli import refused

WORDS = ["train", "quickstart", "--dataset", "synthetic", "--train-samples", 640]


def small(**changes):
    values = {"dataset": "synthetic", "image_size": 8, "train_samples": 640, "batch_size": 64}
    return override(Config("small"), {**values, **changes})


def dense(image_shape, classes, norm):
    images = keras.Input(image_shape)
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(images)
    x = keras.layers.ReLU()(norm()(x))
    return keras.Model(images, keras.layers.Dense(classes)(keras.layers.Flatten()(x)))


def numbers(text):
    """The megabytes of the table."""
    return {
        line.split("  ")[1]: line.split()[-2] for line in text.splitlines() if line.endswith(" MB")
    }


def test_memory_is_that_of_the_variables_and_of_what_layers_were_given(monkeypatch):
    monkeypatch.setitem(NETWORKS, "dense", Network(dense, None, "here"))
    found = numbers(outlook(small(model="dense", image_size=200), ranks=2))
    pixels = 200 * 200
    trained = 3 * 3 * 3 * 4 + 2 * 4 + (pixels * 4 + 1) * 10
    shown = f"{trained * 4 / 1e6:,.1f}"
    assert found[f"weights ({trained:,} trained)"] == found["gradients"] == shown == "6.4"
    # The image, what normalisation was given, and what the last layer was given.
    kept = pixels * (3 + 4 + 4) * 4 * 32
    assert found["activations of a microbatch of 32"] == f"{kept / 1e6:,.1f}"
    assert found["input: 2 batches of 32 instances"] == f"{2 * 32 * pixels * 3 * 4 / 1e6:,.1f}"


def test_rates_are_those_of_training():
    regime = ((0.0, 0.2), (2.0, 0.02))
    config = small(lr=regime, lr_scale=2.0, warmup_epochs=0.5, warmup_from=0.1, epochs=3)
    lines = outlook(config, ranks=1).split("learning rate\n")[1].splitlines()
    assert [re.split("  +", line.strip()) for line in lines] == [
        ["after 0 epochs, step 1", "0.1", "(warm-up)"],
        ["after 0.5 epochs, step 6", "0.4"],
        ["after 2 epochs, step 21", "0.04"],
        ["after 2.9 epochs, step 30", "0.04"],
    ]


def test_what_follows_from_the_batch_is_said():
    changes = {"lr_batch_size": 16, "lr_scale": "linear", "regime_adaptation": True}
    text = outlook(small(**changes, lr=((0.0, 0.1), (0.5, 0.01)), epochs=2), ranks=1)
    assert "rates are multiplied by 4: --lr-scale linear, 4 times the batch that --lr was" in text
    assert "10 steps an epoch, 8 epochs" in text
    assert [line.split() for line in text.split("learning rate\n")[1].splitlines()] == [
        ["after", "0", "epochs,", "step", "1", "0.4"],
        ["after", "2", "epochs,", "step", "21", "0.04"],
        ["after", "7.9", "epochs,", "step", "80", "0.04"],
    ]


def test_rates_of_the_transformer():
    regime = ((0.0, 0.4),)
    config = small(lr=regime, lr_shape="inverse-sqrt", warmup_steps=16, epochs=7)
    lines = outlook(config, ranks=1).split("learning rate\n")[1].splitlines()
    assert [re.split("  +", line.strip()) for line in lines] == [
        ["after 0 epochs, step 1", "0", "(warm-up)"],
        ["after 1.6 epochs, step 17", "0.4"],
        ["after 6.9 epochs, step 70", f"{0.4 * (16 / 69) ** 0.5:.4g}"],
    ]


def test_one_rate_stays_whatever_the_recipe_has(ba_dist):
    """That of quickstart falls on a line to 0; its warm-up is another flag."""
    out = ba_dist(*WORDS, "--lr", "0.1", "--warmup-epochs", 0, "--dry-run", "-n", 1)[1]
    rates = [line.split()[-1] for line in out.split("learning rate\n")[1].splitlines()]
    assert rates == ["0.1", "0.1"]


def test_what_training_would_refuse():
    with pytest.raises(ConfigError, match="inverse-sqrt falls from the end of the warm-up"):
        outlook(small(lr_shape="inverse-sqrt"), ranks=1)
    with pytest.raises(ConfigError, match="--batch-size 64 must divide"):
        outlook(small(), ranks=3)
    with pytest.raises(ConfigError, match="--model 'none' is unknown"):
        outlook(small(model="none"), ranks=1)


def test_the_flag_leaves_nothing(ba_dist, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = ba_dist(*WORDS, "--dry-run", "-n", 4, "--run-dir", tmp_path / "run")
    assert (status, err) == (0, "") and "4 ranks = 2 groups of 2" in out
    assert "10 steps an epoch, 5 epochs; 1000 samples to evaluate on" in out
    assert not list(tmp_path.iterdir())
    refused(ba_dist(*WORDS, "-n", 4), "--ranks is for --dry-run")
