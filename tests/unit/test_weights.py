"""Weights to start from: files of numpy and Keras, another number of classes, what does not fit."""

import io
import pickle
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from ba_dist import models
from ba_dist.errors import UserError
from ba_dist.models import weights
from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization


def network(classes=10, name="resnet8", seed=0):
    keras.utils.set_random_seed(seed)
    return models.build(name, GhostBatchNormalization, image_shape=(8, 8, 1), classes=classes)


def values(model):
    return {v.path: np.asarray(v.value) for v in model.variables}


@pytest.fixture(scope="module")
def trained():
    """A network whose variables are all different, also those that begin as zeros and ones."""
    model = network(seed=1)
    noise = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(noise.random(variable.shape))
    return model


def save_npz(model, path):
    np.savez(path, **values(model))


def save_old(model, path):
    """As files of Keras 2 are, which keras.applications offers: names end in :0, in bytes."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{v.path}:0".encode() for v in layer.weights]
            group.attrs["weight_names"] = np.array(names, "S80")
            for name, variable in zip(names, layer.weights, strict=True):
                group[name.decode()] = np.asarray(variable.value)


def save_keras(model, path):
    model.save(path)


def save_weights(model, path):
    model.save_weights(path)


FORMS = {"w.npz": save_npz, "w.keras": save_keras, "w.weights.h5": save_weights, "w.h5": save_old}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_every_variable(tmp_path, trained, name):
    FORMS[name](trained, tmp_path / name)
    model = network()
    arrays = weights.read(tmp_path / name, model)
    assert weights.put(arrays, model) == (len(model.variables), [])
    for path, value in values(trained).items():
        np.testing.assert_array_equal(values(model)[path], value)


def test_the_digest_is_that_of_the_arrays_whatever_the_form(tmp_path, trained):
    digests = set()
    for name, save in FORMS.items():
        save(trained, tmp_path / name)
        digests.add(weights.digest(weights.read(tmp_path / name, network())))
    (digest,) = digests
    other = {**values(trained), "logits/bias": values(trained)["logits/bias"] + 1}
    assert digest == weights.digest(values(trained)) != weights.digest(other)


def test_nested_networks_and_optimizers(tmp_path):
    def build(seed):
        keras.utils.set_random_seed(seed)
        images = keras.Input((4,))
        inner = keras.Sequential([keras.layers.Dense(3, name="in")], name="inner")
        rows = keras.ops.expand_dims(inner(images), 1)
        answers = keras.layers.Dense(2, name="out")(keras.layers.LSTM(2, name="lstm")(rows))
        return keras.Model(images, answers)

    model = build(1)
    model.compile("adam", "mse")
    model.fit(np.ones((1, 4)), np.ones((1, 2)), verbose=0)
    for name in ("w.keras", "w.weights.h5"):
        FORMS[name](model, tmp_path / name)
        other = build(2)
        weights.put(weights.read(tmp_path / name, other), other)
        for path, value in values(model).items():
            if "seed" not in path:  # those of the first model, in this process
                np.testing.assert_array_equal(values(other)[path], value, err_msg=path)


@pytest.mark.parametrize("name", FORMS)
def test_other_classes_get_a_new_head(tmp_path, trained, name):
    FORMS[name](trained, tmp_path / name)
    model = network(classes=3)
    before = values(model)
    count, new = weights.put(weights.read(tmp_path / name, model), model)
    assert (count, new) == (len(model.variables) - 2, ["logits/kernel", "logits/bias"])
    for path, value in values(model).items():
        expected = before if path in new else values(trained)
        np.testing.assert_array_equal(value, expected[path])


def test_a_file_without_a_head_gives_the_rest(trained):
    arrays = {path: a for path, a in values(trained).items() if not path.startswith("logits")}
    assert weights.put(arrays, network())[1] == ["logits/kernel", "logits/bias"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a: a.pop("stem/kernel"), "only the network has stem/kernel"),
        (lambda a: a.update({"b/kernel": np.ones(1, "f")}), "only the file has b/kernel"),
        (
            lambda a: a.update({"stem/kernel": np.ones((3, 3, 3, 16), "f")}),
            r"stem/kernel is \(3, 3, 3, 16\) in the file, \(3, 3, 1, 16\) in the network",
        ),
        (
            lambda a: a.update({"logits/kernel": np.ones((32, 10), "f")}),
            r"logits/kernel is \(32, 10\) in the file",
        ),
        (lambda a: a.update({"logits/bias": np.full(10, np.nan)}), "logits/bias holds something"),
        (lambda a: a.update({"logits/bias": np.ones(10, int)}), "logits/bias holds something"),
    ],
)
def test_anything_else_that_does_not_fit_is_named_and_nothing_is_set(trained, change, text):
    arrays, model = values(trained), network()
    before = values(model)
    change(arrays)
    with pytest.raises(weights.Unfit, match=text):
        weights.put(arrays, model)
    assert all(np.array_equal(before[path], value) for path, value in values(model).items())


def test_the_resnet_of_keras_applications_is_refused_with_the_reason(tmp_path):
    theirs = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), include_top=False)
    save_old(theirs, tmp_path / "resnet50.h5")
    model = models.build("resnet50", GhostBatchNormalization, image_shape=(32, 32, 3), classes=1000)
    arrays = weights.read(tmp_path / "resnet50.h5", model)
    with pytest.raises(weights.Unfit, match="only the network has stem/kernel"):
        weights.put(arrays, model)
    assert "stride in the first 1x1" in weights.explain(arrays)
    assert weights.explain(values(network())) == ""


class Runs:
    """Says so when a pickle of it is read."""

    def __reduce__(self):
        return (print, ("a pickle was run",))


def test_files_that_cannot_be_read_are_told_and_run_nothing(tmp_path, trained, capsys):
    model = network()
    np.savez(tmp_path / "pickle.npz", a=np.array([Runs()], object))
    (tmp_path / "text.npz").write_text("no")
    (tmp_path / "cut.keras").write_bytes(b"PK\x03\x04")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as file:
        file.writestr("x", pickle.dumps(Runs()))
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = "logits"
        group.create_dataset("0", (10,), "f", external=[(str(tmp_path / "text.npz"), 0, 40)])
    nameless = io.BytesIO()
    with h5py.File(nameless, "w") as file:
        file["layers/dense/vars/0"] = np.ones(10)
    (tmp_path / "nameless.h5").write_bytes(nameless.getvalue())
    names = ["pickle.npz", "text.npz", "cut.keras", "cut.h5", "other.keras", "outside.h5"]
    for name in [*names, "nameless.h5", "gone.npz", "weights.bin"]:
        with pytest.raises(UserError, match=name):
            weights.read(tmp_path / name, model)
    assert capsys.readouterr().out == ""


def test_the_documentation_shows_how_to_take_those_of_keras_applications(tmp_path, monkeypatch):
    """Their network, from their file, gives their answers to the pixels that we standardise."""
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()
    text = text.split("```python\n# applications.py\n")[1].split("```")[0]
    (tmp_path / "applications.py").write_text(text)
    shape = (40, 40, 3)
    theirs = keras.applications.ResNet50(
        weights=None, input_shape=shape, classes=7, classifier_activation=None
    )
    noise = np.random.default_rng(0)
    for variable in theirs.variables:  # also biases and statistics that begin as zeros and ones
        variable.assign(np.asarray(variable.value) + 0.05 * noise.random(variable.shape))
    save_old(theirs, tmp_path / "file.h5")
    ours = models.build(
        "applications.py:resnet50", GhostBatchNormalization, image_shape=shape, classes=7
    )
    arrays = weights.read(tmp_path / "file.h5", ours)
    assert weights.put(arrays, ours) == (len(theirs.variables), [])
    pixels = noise.integers(0, 256, (2, *shape))
    expected = theirs(keras.applications.resnet50.preprocess_input(pixels.astype(np.float32)))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    found = ours((pixels / 255 - mean) / std)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
