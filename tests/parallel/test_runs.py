"""What is done with a run afterwards, as a person does it: on other ranks, in other folders."""

import json
import re

import keras
import numpy as np
import pytest
from PIL import Image as pillow

import ba_dist
from ba_dist import trained
from ba_dist.data.catalog import open_source
from ba_dist.errors import CorruptRecord, UserError
from ba_dist.models import variables
from ba_dist.run import checkpoint
from tests.parallel.ranks import ROOT, warm

SMALL = ["--steps", 6, "--val-samples", 301, "--batch-size", 32]
NET = """
import keras

def network(image_shape, classes, norm):
    images = keras.Input(image_shape)
    x = norm()(keras.layers.Conv2D(4, 3, strides=4, use_bias=False)(images))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(images, keras.layers.Dense(classes)(x))
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with the run of a network of somebody's own, which lies there too."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "net.py").write_text(NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        warm(2, "train", "quickstart", "--model", "net.py:network", "--run-dir", "run", *SMALL)
    return folder


def summary(run):
    return json.loads((run / "summary.json").read_text())


@pytest.mark.mpi
def test_a_network_of_ones_own_is_found_again_from_another_folder(own):
    done = warm(3, "eval", own / "run")
    assert f"val_top1 {summary(own / 'run')['val_top1']:.2%}" in done.stdout


@pytest.mark.mpi
def test_its_name_is_part_of_the_run(own):
    words = ["--model", f"{own}/net.py:network", "--run-dir", own / "run", *SMALL]
    done = warm(1, "train", "quickstart", *words, check=False)
    assert done.returncode == 1 and "model was net.py:network, now /" in done.stderr


# --- weights to start from ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def started(own):
    """A run on two ranks from the weights of that one, at a rate of 0; and what it said."""
    words = [
        "--model",
        f"{own}/net.py:network",
        "--init-from",
        own / "run",
        "--lr",
        "0:0",
        "--warmup-epochs",
        0,
    ]
    words += ["--run-dir", own / "started", *SMALL, "--steps", 1]
    return words, warm(2, "train", "quickstart", *words)


@pytest.mark.mpi
def test_a_run_starts_from_the_weights_of_another_on_every_rank(own, started):
    """A rate of 0 leaves them; the ranks' replicas are compared at the start and at the end."""
    _, done = started
    assert done.stdout.count("starting from 7 variables from") == 1
    before, after = (newest(own / name) for name in ("run", "started"))
    for path in before:
        assert np.array_equal(before[path], after[path]) == ("moving" not in path), path


@pytest.mark.mpi
def test_it_goes_on_from_those_weights_only(own, started):
    words, _ = started
    words = [*words, "--steps", 2]
    arrays = newest(own / "run")
    np.savez(own / "same.npz", **arrays)
    np.savez(own / "other.npz", **{path: array + 1 for path, array in arrays.items()})
    for name in ("other.npz", "gone.npz"):
        words[words.index("--init-from") + 1] = own / name
        refused = warm(2, "train", "quickstart", *words, check=False)
        expected = "init_from was " if name == "other.npz" else "gone.npz is not there"
        assert refused.returncode and refused.stderr.count(expected) == 1
    words[words.index("--init-from") + 1] = own / "same.npz"
    done = warm(1, "train", "quickstart", *words)
    assert "going on at step 1" in done.stdout and "starting from" not in done.stdout


@pytest.mark.mpi
def test_weights_of_another_network_are_refused_before_training(own):
    words = ["--init-from", own / "run", "--run-dir", own / "none", *SMALL]
    done = warm(2, "train", "quickstart", *words, check=False)
    assert done.returncode == 2
    assert done.stderr.count("does not fit resnet8: only the network has stem/kernel") == 1


def newest(run):
    return variables.of_network(checkpoint.newest_good(checkpoint.folder_of(run)).arrays)


# --- the best checkpoint, and evaluation ----------------------------------------------------------


@pytest.fixture(scope="module")
def kept(own):
    """A run of three evaluations that gets no better after the first, stopped after two."""
    words = ["train", "quickstart", "--model", f"{own}/net.py:network", "--run-dir", own / "kept"]
    words += ["--train-samples", 192, "--batch-size", 32, "--val-samples", 301, "--keep-best"]
    words += ["--keep-checkpoints", 1, "--lr", "0:0.05,1:0", "--warmup-epochs", 0]
    warm(2, *words, "--steps", 12)
    before = newest_position(own / "kept")
    warm(2, *words, "--steps", 18)
    return own / "kept", before


def newest_position(run):
    return checkpoint.newest_good(checkpoint.folder_of(run)).facts["position"]


@pytest.mark.mpi
def test_the_best_checkpoint_is_that_of_the_best_evaluation(kept):
    run, before = kept
    events = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    results = {e["step"]: e["val_top1"] for e in events if "val_top1" in e}
    assert list(results) == [6, 12, 18]
    best = max(results, key=lambda step: (results[step], -step))
    assert checkpoint.choose(checkpoint.folder_of(run), "best").step == best
    assert (summary(run)["best"], summary(run)["best_step"]) == (results[best], best)
    assert checkpoint.names(checkpoint.folder_of(run)) == ["best", "18"]
    assert before["best_step"] == 6  # at step 12 the evaluation of step 6 was the only one


@pytest.mark.mpi
def test_evaluation_counts_every_sample_once_on_any_number_of_ranks(kept):
    run, _ = kept
    words = ["--per-class", "--tta", 3]
    texts = {
        warm(ranks, "eval", run, "--checkpoint", "best", *words, "--json").stdout
        for ranks in (1, 2, 3)
    }
    found, *others = [json.loads(text) for text in texts]
    for other in others:  # the loss is a sum whose order differs
        assert other.pop("val_loss") == pytest.approx(found["val_loss"], rel=1e-6)
        assert other == {name: value for name, value in found.items() if name != "val_loss"}
    compared = found["tta"]["compared"]["val_top1"]
    assert found["tta"]["copies"] == 3 and compared["single"] == found["val_top1"]
    assert compared["tta"] == found["tta"]["val_top1"]
    assert compared["difference"] == (compared["gained"] - compared["lost"]) / 301
    counts = np.array(found["confusion"])
    assert counts.sum() == found["samples"] == 301
    assert np.trace(counts) == pytest.approx(found["val_top1"] * 301)
    labels = open_source(trained.read_config(run)[0].data, "validation")
    labels = [labels.decode(labels.read(i))[1] for i in range(301)]
    assert counts.sum(1).tolist() == np.bincount(labels, minlength=10).tolist()
    assert found["step"] == summary(run)["best_step"] and found["val_top1"] == summary(run)["best"]


@pytest.mark.mpi
def test_an_evaluation_for_people_and_a_picture(kept, tmp_path):
    run, _ = kept
    moved = warm(1, "eval", run, "--data-dir", tmp_path / "gone", check=False)
    assert moved.returncode == 1 and str(tmp_path / "gone") in moved.stderr
    lines = warm(2, "eval", run, "--per-class").stdout.splitlines()
    assert lines[0].startswith("step 18  val_top1 ") and len(lines) == 12
    plain = warm(1, "eval", run, "--json").stdout
    both = json.loads(warm(1, "eval", run, "--json", "--tta", 2, "--tta-average", "logits").stdout)
    assert both.pop("tta")["average"] == "logits" and both == json.loads(plain)
    done = warm(2, "plot", "confusion", run, "--output", tmp_path / "confusion.png")
    assert done.stdout == f"{tmp_path / 'confusion.png'}\n"
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


# --- export ---------------------------------------------------------------------------------------


@pytest.mark.mpi
def test_a_network_is_exported_by_the_ending_of_its_name(own, tmp_path):
    written = {
        name: warm(1, "export", own / "run", "--output", f"{tmp_path}/{name}").stdout
        for name in ("net.keras", "net/")
    }
    for said in written.values():
        assert "pixels 0 … 255 [n, 28, 28, 1] -> logits [n, 10]" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net", "net.keras"]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.uint8)
    found = keras.models.load_model(tmp_path / "net.keras").predict(pixels, verbose=0)
    run = trained.load(own / "run")
    inputs = run.made.task.finish_plain(pixels, np.zeros(3, np.int64))
    expected = run.made.task.predict(run.made.model, inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    for name, text in (("net/", "is there already"), ("net", "tells no format")):
        done = warm(1, "export", own / "run", "--output", f"{tmp_path}/{name}", check=False)
        assert done.returncode and text in done.stderr


# --- predictions ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(own, tmp_path_factory):
    """Validation images in files, one of them corrupt, one of another size; and their labels."""
    folder = tmp_path_factory.mktemp("images")
    source = open_source(trained.read_config(own / "run")[0].data, "validation")
    labels = []
    for i in range(4):
        image, label = source.decode(source.read(i))
        pillow.fromarray(image[..., 0]).save(folder / f"{i}.png")
        labels.append(label)
    pillow.fromarray(np.zeros((30, 28), np.uint8)).save(folder / "size.png")
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.mark.mpi
def test_predictions_are_those_of_the_evaluation_and_corrupt_files_are_told(own, images):
    done = warm(1, "predict", own / "run", images, "--top", 3, "--json", check=False)
    assert done.returncode == 1
    assert "size.png: an image of fashion_mnist is 30x28x1, the network takes" in done.stderr
    assert "torn.png: " in done.stderr and "2 of 6 images could not be read" in done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["image"] for entry in found] == [str(images / f"{i}.png") for i in range(4)]
    source = open_source(trained.read_config(own / "run")[0].data, "validation")
    pixels = np.stack([source.decode(source.read(i))[0] for i in range(4)])
    run = trained.load(own / "run")
    answers = run.made.model(run.made.task.finish_plain(pixels, np.zeros(4, int))["images"])
    shares = np.asarray(keras.ops.softmax(answers))
    for entry, row in zip(found, shares, strict=True):
        top = np.argsort(-row)[:3]
        assert [told["class"] for told in entry["top"]] == top.tolist()
        told = [told["probability"] for told in entry["top"]]
        np.testing.assert_allclose(told, row[top], rtol=1e-4)


@pytest.mark.mpi
def test_predictions_for_people(own, images):
    words = ["predict", own / "run", images / "0.png", "--top", 2]
    (line,) = warm(1, *words).stdout.splitlines()
    answer = r"  \d [\w/-]+ [\d.]+%"  # number, name, probability
    assert re.fullmatch(f"{images}/0.png{2 * answer}", line), line
    (images / "empty").mkdir(exist_ok=True)
    done = warm(1, "predict", own / "run", images / "empty", check=False)
    assert done.returncode == 1 and "there is no image" in done.stderr


# --- in Python ------------------------------------------------------------------------------------


@pytest.mark.mpi
def test_the_example_of_a_run_in_a_script_runs(tmp_path):
    done = warm(2, "python", ROOT / "docs" / "examples" / "run.py", tmp_path / "run")
    said, of_three, predicted = done.stdout.splitlines()[-3:]
    found = summary(tmp_path / "run")
    step, best = found["best_step"], found["best"]
    assert said == f"['best', '46', '60'] step {step}  val_top1 {best:.1%}"
    assert re.fullmatch(r"of 3 copies  val_top1 [\d.]+%", of_three)
    assert predicted.startswith("resnet8: classes [") and done.stderr == ""


def test_a_run_as_an_object(own, images):
    run = ba_dist.load_run(own / "run")
    assert run.config.model.model == "net.py:network" and run.checkpoints == ["6"]
    paths = [images / f"{i}.png" for i in range(4)]
    shares = run.predict(paths)
    pixels = [np.asarray(pillow.open(path))[:, :, None] for path in paths]
    np.testing.assert_array_equal(run.predict(np.stack(pixels)), shares)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert shares.shape == (4, 10) and run.step == 6 and len(run.model.variables) == 7
    with pytest.raises(CorruptRecord, match="torn.png"):
        run.predict([images / "torn.png"])
    with pytest.raises(UserError, match="trace"):
        run.audit()
    with pytest.raises(UserError, match="is not a run directory"):
        ba_dist.load_run(images)
