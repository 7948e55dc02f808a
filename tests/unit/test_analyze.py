"""`ba-dist analyze`: gradients of a run, against plain TensorFlow in float64 and numpy."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import ba_dist as api
from ba_dist.analysis.correlation import (
    Instances,
    _companions,
    correlate,
    ordered,
    sample_gradient,
)
from ba_dist.analysis.states import OpenRun
from ba_dist.analysis.variance import measure_variance
from ba_dist.config import override
from ba_dist.data.batch import make
from ba_dist.data.catalog import open_source
from ba_dist.errors import ConfigError, DataError, UserError
from ba_dist.models import variables
from ba_dist.models.weights import digest
from ba_dist.recipes import recipe
from ba_dist.recipes.quickstart import on_digits
from ba_dist.reports import confusion
from ba_dist.rules.keys import Purpose, analysis_keys, integers
from ba_dist.rules.order import Permutation
from ba_dist.rules.pairs import choose_pairs
from ba_dist.run import checkpoint

pytestmark = pytest.mark.usefixtures("single_precision")
NET = """
import keras

def network(image_shape, classes, norm):
    images = keras.Input(image_shape)
    x = keras.layers.Conv2D(3, 3, strides=2, use_bias=False, name="conv")(images)
    x = keras.layers.ReLU()(norm(name="norm")(x))
    x = keras.layers.Flatten()(x)
    return keras.Model(images, keras.layers.Dense(classes, name="head")(x))
"""
GHOST, PAIRS, SEED = 8, 5, 3
RECIPE = {
    **{"batch_size": 16, "multiplicity": 2, "ghost_batch_size": GHOST, "train_samples": 200},
    **{"val_samples": 20, "steps": 3, "checkpoint_every": 1, "keep_checkpoints": 9},
    **{"pad_crop": 1, "flip": True, "cutout": 3, "label_smoothing": 0.1, "precision": "fp64"},
}
NAMES = [
    *(f"(x, T(x)) {view}" for view in ("pad-crop", "flip", "cutout", "pad-crop, flip")),
    "(x, T(x)) pad-crop, flip, cutout",
    "(x, y) same class",
    "(z, w) different classes",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a small network in float64, with a checkpoint after each of three steps."""
    folder = tmp_path_factory.mktemp("analyze")
    (folder / "net.py").write_text(NET)
    changes = {**RECIPE, "model": "net.py:network", "run_dir": "run"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        api.train(override(on_digits(recipe("quickstart")), changes))
    return folder / "run"


@pytest.fixture(scope="module")
def config(run):
    return api.load_run(run).config


@pytest.fixture(scope="module")
def source(config):
    return open_source(config.data, "train")


def weights(run, step):
    found = checkpoint.choose(checkpoint.folder_of(run), str(step)).arrays
    return {name.removeprefix("model/"): array for name, array in found.items()}


def logits(arrays, images, batch_statistics):
    """The network in plain operations."""
    x = tf.nn.conv2d(images, arrays["conv/kernel"], 2, "VALID")
    if batch_statistics:
        mean = tf.reduce_mean(x, [0, 1, 2])
        variance = tf.reduce_mean((x - mean) ** 2, [0, 1, 2])
    else:
        mean, variance = arrays["norm/moving_mean"], arrays["norm/moving_variance"]
    x = (x - mean) / tf.sqrt(variance + 1e-5) * arrays["norm/gamma"] + arrays["norm/beta"]
    x = tf.reshape(tf.nn.relu(x), [len(images), -1])
    return x @ arrays["head/kernel"] + arrays["head/bias"]


def gradient(arrays, images, labels, *, batch_statistics=False, rows=None):
    """That of the mean loss of the first rows, all weights in one vector."""
    arrays = {name: tf.constant(array) for name, array in arrays.items()}
    names = ["conv/kernel", "norm/gamma", "norm/beta", "head/kernel", "head/bias"]
    rows = len(labels) if rows is None else rows
    targets = 0.9 * np.eye(10)[labels] + 0.01
    with tf.GradientTape() as tape:
        for name in names:
            tape.watch(arrays[name])
        found = logits(arrays, tf.constant(images), batch_statistics)[:rows]
        loss = -tf.reduce_sum(targets[:rows] * tf.nn.log_softmax(found)) / rows
    parts = tape.gradient(loss, [arrays[name] for name in names])
    return np.concatenate([part.numpy().reshape(-1) for part in parts])


def standardised(pixels, info):
    mean, std = (np.asarray(part) for part in (info.mean, info.std))
    return (pixels / 255 - mean) / std


def cropped(image, sample, number):
    """Padded by one pixel of zeros and cut, as the sample's key says; and the square of cutout."""
    key = analysis_keys(SEED, np.array([sample]), number)
    top, left = (int(integers(key, 0, 2, stream)[0]) for stream in (0, 1))
    height, width, _ = image.shape
    return np.pad(image, ((1, 1), (1, 1), (0, 0)))[top : top + height, left : left + width]


def corr(a, b):
    return np.corrcoef(a, b)[0, 1]


def expected(run, source, step, **ghost):
    """Rows of pad-crop, flip, (x, y) and (z, w), [4, pairs]."""
    arrays, info = weights(run, step), source.info
    samples = [source.decode(source.read(i)) for i in range(len(source))]
    pairs = choose_pairs(lambda i: samples[i][1], len(samples), PAIRS, SEED)
    companions = np.zeros((0, *info.image_shape))
    if ghost:
        ids = Permutation(len(samples), SEED, 2, Purpose.PROBE)(np.arange(GHOST - 1))
        companions = standardised(np.array([samples[i][0] for i in ids]), info)

    def of(sample, image=None):
        plain, label = samples[sample]
        pixels = plain if image is None else image
        images = np.concatenate([standardised(pixels, info)[None], companions])
        labels = np.array([label] + [0] * len(companions))
        # The library's pixels are of float32.
        images = images.astype(np.float32).astype(np.float64)
        return gradient(arrays, images, labels, batch_statistics=bool(ghost), rows=1)

    found = []
    for x, y, z, w in zip(pairs.x, pairs.y, pairs.z, pairs.w, strict=True):
        image = samples[x][0]
        copies = (cropped(image, x, number) for number in range(64))
        moved = next(copy for copy in copies if (copy != image).any())
        found.append(
            [
                corr(of(x), of(x, moved)),
                corr(of(x), of(x, image[:, ::-1])),
                corr(of(x), of(y)),
                corr(of(z), of(w)),
            ]
        )
    return np.array(found).T


@pytest.mark.parametrize("normalised", ["moving", "ghost"])
def test_correlations_are_those_of_a_reference(run, source, normalised):
    before = weights(run, 3)
    found = correlate(run, ["3"], pairs=PAIRS, seed=SEED, normalised=normalised)
    rows = {row.pair: row.spread for row in found.states[0][1]}
    assert list(rows) == NAMES
    ghost = {"ghost": True} if normalised == "ghost" else {}
    for name, values in zip(
        [NAMES[0], NAMES[1], *NAMES[-2:]], expected(run, source, 3, **ghost), strict=True
    ):
        # Pixels differ in the last bit of float32: they are not divided but multiplied.
        assert rows[name].median == pytest.approx(np.median(values), abs=1e-5), name
        assert rows[name].deviation == pytest.approx(np.std(values, ddof=1), abs=1e-5), name
        assert rows[name].undefined == 0
    assert all((before[name] == array).all() for name, array in weights(run, 3).items())


def test_the_two_ways_to_normalise_differ(run):
    moving, ghost = (
        correlate(run, ["3"], pairs=PAIRS, normalised=way).states[0][1]
        for way in ("moving", "ghost")
    )
    assert all(a.spread.median != b.spread.median for a, b in zip(moving, ghost, strict=True))


def test_measuring_among_companions_moves_no_statistics(run):
    opened = OpenRun(run, ["3"])
    (state,) = opened.states()
    assert (state.step, state.epoch) == (3, 0.25)
    before = [v.numpy() for v in opened.made.model.variables]
    instances = Instances(opened.config, opened.info, 0)
    of = sample_gradient(
        instances.task, opened.made.model, _companions(opened, instances, 0, "ghost")
    )
    assert of(instances.plain(*opened.sample(0))).any()
    for variable, value in zip(opened.made.model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_the_states_of_a_run(run):
    opened = OpenRun(run, ["all", "newest", "2"])
    kept = {}
    for state in opened.states():
        kept[state.name] = opened.made.model.get_layer("conv").kernel.numpy()
    assert list(kept) == ["initial", "1", "2", "3", "newest"]
    np.testing.assert_array_equal(kept["3"], kept["newest"])
    for step in (1, 2, 3):
        np.testing.assert_array_equal(kept[str(step)], weights(run, step)["conv/kernel"])
    assert (kept["initial"] != kept["1"]).any()
    again = {s.name: opened.made.model.get_layer("conv").kernel.numpy() for s in opened.states()}
    np.testing.assert_array_equal(again["initial"], kept["initial"])


def test_the_initial_network_is_that_of_the_seed(run, config):
    """The first step from it is the one that the run has done."""
    opened = OpenRun(run, ["initial"])
    assert [s.name for s in opened.states()] == ["initial"]
    other = OpenRun(run, ["initial"]).made.model
    for mine, theirs in zip(opened.made.model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    first = weights(run, 1)["head/bias"] - opened.made.model.get_layer("head").bias.numpy()
    rate = config.optimizer.warmup_from
    assert 0 < np.abs(first).max() < 2 * rate


def begun_from(run, folder, weights, digest):
    """A run that says it began with the weights of a file, and its checkpoints their digest."""
    for name in (run / "metrics.jsonl", run.parent / "net.py"):
        (folder / name.name).symlink_to(name)
    facts = json.loads((run / "config.json").read_text())
    facts["config"]["model"]["init_from"] = weights and str(weights)
    (folder / "config.json").write_text(json.dumps(facts))
    found = checkpoint.choose(checkpoint.folder_of(run))
    found.facts["config"]["model"]["init_from"] = digest
    checkpoint.save(checkpoint.folder_of(folder), found, 1)
    return folder


def test_the_start_of_a_run_from_weights_is_that_of_their_file(run, tmp_path):
    saved = checkpoint.choose(checkpoint.folder_of(run), "2").arrays
    arrays = {n: a for n, a in variables.of_network(saved).items() if a.dtype.kind == "f"}
    file = tmp_path / "weights.npz"
    np.savez(file, **arrays)
    begun = begun_from(run, tmp_path, file, digest(arrays))
    opened = OpenRun(begun, ["initial"])
    assert [s.name for s in opened.states()] == ["initial"]
    kernel = opened.made.model.get_layer("conv").kernel.numpy()
    np.testing.assert_array_equal(kernel, arrays["conv/kernel"])
    np.savez(file, **{**arrays, "conv/kernel": arrays["conv/kernel"] + 1})
    for which in ("initial", "all"):
        with pytest.raises(DataError, match=f"npz are not those .*, the run's {digest(arrays)};"):
            OpenRun(begun, [which])
    file.unlink()
    assert [s.step for s in OpenRun(begun, ["newest"]).states()] == [3]


def test_an_older_checkpoint_is_told_once(run, tmp_path, capsys):
    begun = begun_from(run, tmp_path, None, None)
    (checkpoint.folder_of(begun) / "step-00000009.safetensors").write_bytes(b"torn")
    assert [(s.name, s.step) for s in OpenRun(begun, ["newest"]).states()] == [("newest", 3)]
    assert capsys.readouterr().err.count("warning: ") == 1


# --- variance -------------------------------------------------------------------------------------


def test_the_variance_is_that_of_a_reference(run, source, monkeypatch):
    """Of every copy of every ghost batch the gradient in plain operations, and numpy's sums."""
    copies, ghosts = 3, 8
    found = measure_variance(run, ["2"], copies=copies, repeats=2, seed=SEED)
    assert (found.ghosts, found.ghost_batch, found.multiplicity) == (ghosts, GHOST, 2)
    opened = OpenRun(run, ["2"])
    arrays, task = weights(run, 2), opened.made.task
    order = Permutation(len(source), SEED, 3, Purpose.PROBE)
    estimates = []
    for repeat in range(2):
        table = []
        for ghost in range(ghosts):
            first = (repeat * ghosts + ghost) * GHOST
            ids = order(first + np.arange(GHOST))
            images, labels = zip(*(source.decode(source.read(int(i))) for i in ids), strict=True)
            for copy in range(copies):
                keys = analysis_keys(SEED, ids, copy)
                inputs = make(task, list(images), np.array(labels), keys, ghost_batch=GHOST)
                pixels = inputs["images"].numpy().astype(np.float64)
                table.append(gradient(arrays, pixels, np.array(labels), batch_statistics=True))
        table = np.array(table).reshape(ghosts, copies, -1)
        means = table.mean(1)
        within = ((table - means[:, None]) ** 2).sum() / (ghosts * (copies - 1))
        between = copies * ((means - means.mean(0)) ** 2).sum() / (ghosts - 1)
        estimates.append([(between - within) / copies * GHOST, within * GHOST])
    (part,) = found.measured
    np.testing.assert_allclose(
        [part.split.samples, part.split.copies], np.mean(estimates, 0), rtol=1e-6
    )
    error = np.std(estimates, axis=0, ddof=1) / np.sqrt(2)
    np.testing.assert_allclose([part.error.samples, part.error.copies], error, rtol=1e-5)


def test_without_augmentation_nothing_comes_from_copies(run, tmp_path):
    for name in ("checkpoints", "net.py"):
        source = run / name if name == "checkpoints" else run.parent / name
        (tmp_path / name).symlink_to(source)
    facts = json.loads((run / "config.json").read_text())
    facts["config"]["augment"] |= {"pad_crop": 0, "flip": False, "cutout": 0}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    found = measure_variance(tmp_path, repeats=2).measured[0].split
    assert abs(found.copies) < 1e-12 < found.samples and found.copies_needed() == 1
    states = correlate(tmp_path, ["newest"], pairs=PAIRS).states
    assert [row.pair for row in states[0][1]] == NAMES[-2:]


def test_it_foretells_the_norm_that_training_finds(run, tmp_path, monkeypatch):
    """At the weights of the run, which a rate of 0 keeps: the mean square of the norms of steps."""
    monkeypatch.chdir(run.parent)
    changes = {**RECIPE, "model": "net.py:network", "init_from": str(run), "lr": ((0.0, 0.0),)}
    changes |= {"warmup_epochs": 0.0, "log_every": 1, "steps": 96, "checkpoint_every": 96}
    changes |= {"eval_every": 8}
    made = override(on_digits(recipe("quickstart")), {**changes, "run_dir": str(tmp_path / "run")})
    api.train(made)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    norms = [event["grad_norm"] for event in map(json.loads, lines) if event["event"] == "step"]
    assert len(norms) == 96
    seen = np.sqrt(np.mean(np.square(norms)))
    found = measure_variance(run, repeats=3).measured[0].split
    assert found.norm(16, 2) == pytest.approx(seen, rel=0.05)


def test_no_sample_is_in_two_estimates(ba_dist, run, monkeypatch):
    """200 samples are three times 8 ghost batches of 8: a fourth would be of the first ones."""
    drawn = []
    sample = OpenRun.sample

    def note(opened, number):
        drawn.append(number)
        return sample(opened, number)

    monkeypatch.setattr(OpenRun, "sample", note)
    status, out, err = ba_dist("analyze", "variance", run, "--copies", 2)
    assert status == 0 and len(drawn) == len(set(drawn)) == 3 * 8 * GHOST and "(±" in out
    assert err.startswith("note: --repeats 8, but the training samples are enough for 3 of 8 ghost")


def test_one_estimate_has_no_error(ba_dist, run, monkeypatch):
    monkeypatch.setattr("ba_dist.analysis.variance._GHOSTS", 25)  # all samples are in one
    status, out, err = ba_dist("analyze", "variance", run, "--repeats", 2)
    assert status == 0 and "±" not in out and "nan" not in out.lower() and "for 1 of 25" in err
    status, out, _ = ba_dist("analyze", "variance", run, "--repeats", 2, "--json")
    found = json.loads(out)
    assert status == 0 and found["repeats"] == 1
    assert found["measured"][0]["variance_of_copies_error"] is None


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_draws(ba_dist, run, tmp_path):
    words = ["analyze", "correlation", run, "--pairs", 4, "--output", tmp_path / "c.svg"]
    status, out, err = ba_dist(*words)
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].split() == ["initial", "1", "2", "3"]
    assert all(line.startswith(name) for line, name in zip(lines[3:10], NAMES, strict=True))
    assert lines[-1] == f"{tmp_path / 'c.svg'}" and "<svg" in (tmp_path / "c.svg").read_text()
    words = ["analyze", "variance", run, "--repeats", 2, "--output", tmp_path / "v.png"]
    status, out, err = ba_dist(*words)
    assert status == 0, err
    assert "<- the run's M" in out and (tmp_path / "v.png").stat().st_size > 10_000
    status, out, err = ba_dist(*words[:-1], tmp_path / "v.txt")  # before anything is measured
    assert (status, out) == (1, "") and "expected a file that ends in .png, .svg or .pdf" in err


def test_a_picture_of_confusions_is_called_as_its_run(
    ba_dist, run, tmp_path, monkeypatch, figures_of
):
    drawn = figures_of(confusion)
    monkeypatch.chdir(run)
    for _ in range(2):  # the second one takes the place of the first
        status, out, err = ba_dist("plot", "confusion", ".", "--output", tmp_path / "c.png")
        assert (status, out) == (0, f"{tmp_path / 'c.png'}\n"), err
    assert drawn[0].axes[0].get_title().startswith("run, step 3 ")


def test_json_holds_all_of_it(ba_dist, run):
    one = ["--checkpoint", "initial", "--checkpoint", "2", "--json"]
    status, out, _ = ba_dist("analyze", "correlation", run, "--pairs", 4, *one)
    found = json.loads(out)
    assert status == 0 and (found["pairs"], found["seed"], found["batch_norm"]) == (4, 0, "moving")
    assert [state["step"] for state in found["states"]] == [0, 2]
    for state in found["states"]:
        assert [row["pair"] for row in state["rows"]] == NAMES
        assert all(-1 <= row["median"] <= 1 for row in state["rows"])
        assert isinstance(state["ordered"], bool)
    status, out, _ = ba_dist("analyze", "variance", run, "--repeats", 2, *one)
    found = json.loads(out)
    assert status == 0 and [state["step"] for state in found["measured"]] == [0, 2]
    for state in found["measured"]:
        rows = state["multiplicities"]
        assert [row["multiplicity"] for row in rows] == [1, 2, 4, 8, 16, 32]
        total = (state["variance_of_samples"] + state["variance_of_copies"] / 2) / 16
        assert rows[1]["variance"] == pytest.approx(total, rel=1e-8)


def test_the_order_is_judged_by_all_augmentations_together(run):
    rows = list(correlate(run, ["3"], pairs=4).states[0][1])

    def with_medians(*medians):
        return [
            dataclasses.replace(row, spread=dataclasses.replace(row.spread, median=median))
            for row, median in zip(rows, medians, strict=True)
        ]

    assert ordered(with_medians(0.1, 0.1, 0.1, 0.1, 0.5, 0.4, 0.0))
    assert not ordered(with_medians(0.9, 0.9, 0.9, 0.9, 0.3, 0.4, 0.0))
    assert not ordered(with_medians(0.9, 0.9, 0.9, 0.9, 0.9, 0.1, 0.2))
    assert not ordered(with_medians(0.9, 0.9, 0.9, 0.9, float("nan"), 0.1, 0.0))


@pytest.mark.parametrize("command", ["correlation", "variance"])
@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--checkpoint", "last"], ["--checkpoint last is none of initial, all", "1, 2, 3"]),
        (["--checkpoint", "7"], ["has no checkpoint 7; there are: 1, 2, 3"]),
        (["--checkpoint", "best"], ["has no checkpoint best", "--keep-best"]),
    ],
)
def test_a_state_that_is_not_there_is_one_message(ba_dist, run, command, words, parts):
    status, out, err = ba_dist("analyze", command, run, *words)
    assert status in (1, 2) and out == "" and err.startswith("ba-dist: ")
    assert "Traceback" not in err and not [part for part in parts if part not in err], err


@pytest.mark.parametrize("command", ["correlation", "variance"])
@pytest.mark.parametrize(
    ("model", "task"), [("lstm-small", "language-model"), ("transformer-small", "translation")]
)
def test_a_run_that_has_learned_no_classes_is_told_what_works(
    ba_dist, run, tmp_path, command, model, task
):
    facts = json.loads((run / "config.json").read_text())
    facts["config"]["model"]["model"] = model
    (tmp_path / "config.json").write_text(json.dumps(facts))
    shutil.copy(run / "metrics.jsonl", tmp_path)
    status, out, err = ba_dist("analyze", command, tmp_path)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert f"learned the task {task}, not classes of images" in err
    assert f"`ba-dist plot gradient-norm {tmp_path}`" in err
    assert ba_dist("plot", "gradient-norm", tmp_path)[0] == 0


@pytest.mark.parametrize("command", ["correlation", "variance"])
def test_a_folder_without_a_run_is_one_message(ba_dist, tmp_path, command):
    status, out, err = ba_dist("analyze", command, tmp_path / "nothing")
    assert status == 1 and out == "" and err.startswith("ba-dist: ") and "Traceback" not in err


def test_other_data_than_that_of_the_run_is_refused(run, tmp_path):
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    facts = json.loads((run / "config.json").read_text())
    facts["data"]["train_digest"] = "0123"
    (tmp_path / "config.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="digest is .*, the run's 0123"):
        correlate(tmp_path, ["newest"], pairs=2)


def test_too_few_samples_are_refused(run):
    with pytest.raises(ConfigError, match="--pairs 150: 200 training samples hold only"):
        correlate(run, pairs=150)
    with pytest.raises(UserError, match="--data-dir|not"):
        correlate(run.parent / "no-run")
