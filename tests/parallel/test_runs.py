"""What is done with a run afterwards, as a person does it: on other ranks, in other folders."""

import json

import pytest

from tests.parallel.ranks import warm

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
