"""Networks of people's own: found, made, and refused with one message where they do not fit."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from ba_dist import models
from ba_dist.errors import ConfigError
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization

FACTS = {"image_shape": (8, 8, 3), "classes": 5}
SOURCE = """
import keras

def whole(image_shape, classes, norm):
    images = keras.Input(image_shape)
    x = norm()(keras.layers.Conv2D(4, 3, use_bias=False)(images))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(images, keras.layers.Dense(classes)(x))

def last(classes, *layers, **more):
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(classes, **more)])

def plain(classes, width=2):
    return last(classes, keras.layers.Conv2D(width, 3))

def needy(image_shape, depth): ...
def layer(classes): return keras.layers.Dense(classes)
def features(): return last(7)
def grey(classes): return last(classes, keras.Input((8, 8, 1)))
def failing(classes):
    return keras.layers.Dense(classes, use_bais=True)
def softmax(classes): return last(classes, activation="softmax")
def batch_norm(classes): return last(classes, keras.layers.BatchNormalization(name="bn"))
def frozen(classes): return last(classes, keras.layers.BatchNormalization(trainable=False))
def dropout(classes): return last(classes, keras.layers.Dropout(0.5, name="drop"))
def alike(classes):
    return last(classes, *(keras.layers.Dense(3, name="a") for _ in range(2)))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(SOURCE)
    (tmp_path / "helped.py").write_text("from nets_of_mine import whole\n")
    (tmp_path / "nets_of_mine.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("import keras\nimport no_such_package\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("nets_of_mine", None)


def build(name, **more):
    models.check(name)
    return models.build(name, GhostBatchNormalization, **FACTS, **more)


def test_the_example_of_the_documentation_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()
    (tmp_path / "net.py").write_text(text.split("```python\n# net.py\n")[1].split("```")[0])
    assert len(build("net.py:network").trainable_variables) == 5


@pytest.mark.parametrize(
    "name", ["nets.py:whole", "helped.py:whole", "nets_of_mine:whole", "nets.py:plain"]
)
def test_a_function_gives_the_network(folder, name):
    path = list(sys.path)
    model = build(name)
    assert model(np.zeros((2, 8, 8, 3), np.float32)).shape == (2, 5)
    assert models.network(name).task == "classification" and sys.path == path


def test_a_second_network_has_the_names_of_the_first(folder):
    """Keras counts on: a run that is evaluated where another was trained would not fit."""
    first, second = build("nets.py:whole"), build("nets.py:whole")
    assert [v.path for v in first.variables] == [v.path for v in second.variables]


def test_names_are_counted_from_zero_in_the_precision_that_was_set(folder):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert build("nets.py:whole").layers[1].compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_statistics_that_stay_are_no_problem(folder):
    assert len(build("nets.py:frozen").trainable_variables) == 2


def test_the_folder_of_the_run_is_looked_in_from_elsewhere(folder, monkeypatch):
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    with pytest.raises(ConfigError, match=r"there is no file nets.py in .*elsewhere"):
        models.check("nets.py:whole")
    assert models.build("nets.py:whole", GhostBatchNormalization, home=folder, **FACTS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nets.py:", "is no function; expected MODULE:FUNCTION or FILE.py:FUNCTION"),
        (":whole", "is no function"),
        ("other.py:whole", "there is no file other.py in"),
        ("no_such_module:f", "there is no module no_such_module, neither installed nor in"),
        ("nets.py:gone", "nets.py has no function gone"),
        ("broken.py:f", r"failed in .*broken.py, line 2: ModuleNotFoundError: No module named"),
        ("nets.py:failing", r"failed in .*nets.py, line \d+: .*use_bais"),
        ("nets.py:needy", "asks for depth; it is given image_shape, classes, norm by name"),
        ("nets.py:layer", "gives Dense; expected a keras.Model"),
        ("nets.py:features", r"gives \(None, 7\) for images .*; expected logits \(None, 5\)"),
        ("nets.py:grey", r"takes \(None, 8, 8, 1\); the images are \(None, 8, 8, 3\)"),
        ("nets.py:softmax", "ends in a softmax; expected logits"),
        ("nets.py:batch_norm", "layer bn is a BatchNormalization, whose result depends on the num"),
        ("nets.py:dropout", "layer drop draws random numbers that depend on the number of ranks"),
        ("nets.py:alike", r"two variables named .*a/|failed.*unique"),
    ],
)
def test_what_does_not_fit_is_refused_by_one_message(folder, name, text):
    with pytest.raises(ConfigError, match=text) as refusal:
        build(name)
    assert name.strip(":") in str(refusal.value)
