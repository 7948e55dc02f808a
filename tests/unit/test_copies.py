"""`ba-dist plot augmentations`: the page of pictures, and its command beside `plot RUNS…`."""

import dataclasses
import sys
import types

import click
import matplotlib.pyplot as plt
import numpy as np
import pytest
from click.testing import CliRunner

from ba_dist.cli import commands as cli
from ba_dist.config import Augment, Batch
from ba_dist.data.augment import Augmentation
from ba_dist.data.copies import copies_of
from ba_dist.data.sources import ArraySource
from ba_dist.recipes import recipe
from ba_dist.reports import copies
from ba_dist.rules.keys import augmentation_keys
from ba_dist.tasks.classification import Classification

from .photographs import ANY_SIZE, INFOS, PICTURES, WHOLE


@dataclasses.dataclass
class Photographs(ArraySource):
    """Pictures of two sizes."""

    def decode(self, record, place=None):
        image, label = super().decode(record)
        return (image if label else np.swapaxes(image, 0, 1)), label


def small():
    images = PICTURES["photographs"]
    return ArraySource(INFOS["photographs"], images, np.arange(len(images)) % 10, "small")


def large():
    info = dataclasses.replace(ANY_SIZE, image_shape=WHOLE[0].shape)
    return Photographs(info, np.stack(WHOLE), np.arange(2), "large")


def task_of(augment):
    return Classification(Augmentation(augment, INFOS["photographs"]))


def test_nothing_but_scaling_lies_between_copies_and_pixels():
    images = tuple(PICTURES["photographs"])
    keys = augmentation_keys(0, 0, np.arange(12), 0)
    found = copies_of(task_of(Augment()), INFOS["photographs"], images, keys)
    np.testing.assert_allclose(found, np.stack(images) / 255, atol=1e-6)
    config = Augment(lighting=50.0, mixup=0.5)
    found = copies_of(task_of(config), INFOS["photographs"], images, keys)
    assert found.min() == 0 and found.max() == 1


@pytest.mark.parametrize("name", PICTURES)
def test_a_page_has_a_row_a_sample_and_a_column_a_copy(tmp_path, monkeypatch, name):
    shown = []
    monkeypatch.setattr(copies, "_show", lambda axis, image, title: shown.append((image, title)))
    images = PICTURES[name]
    source = ArraySource(INFOS[name], images, np.arange(12), "some")
    config = recipe("quickstart")
    config = dataclasses.replace(config, batch=Batch(batch_size=12, multiplicity=3))
    path = copies.plot_copies(config, source, tmp_path / "page.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    titles = ["original", "copy 0", "copy 1", "copy 2"]
    assert [title for _, title in shown] == titles + [""] * 12
    for row in range(4):
        original, *three = [image for image, _ in shown[4 * row : 4 * row + 4]]
        assert any(np.array_equal(original, image / 255) for image in images)
        assert len({image.tobytes() for image in three}) == 3
    assert not plt.get_fignums()


def test_samples_are_those_of_the_first_step(tmp_path, monkeypatch):
    """Copy 0 of the first row is the first instance of the run."""
    shown = []
    monkeypatch.setattr(copies, "_show", lambda axis, image, title: shown.append(image))
    config = recipe("quickstart")
    config = dataclasses.replace(config, batch=Batch(batch_size=12, multiplicity=20))
    copies.plot_copies(config, small(), tmp_path / "page.png")
    assert len(shown) == 4 * (1 + 8)
    (place,) = np.flatnonzero((PICTURES["photographs"] / 255 == shown[0]).all(axis=(1, 2, 3)))
    keys = augmentation_keys(config.run.seed, 0, [place], 7)
    picture = PICTURES["photographs"][place]
    (expected,) = copies_of(task_of(config.augment), INFOS["photographs"], (picture,), keys)
    assert np.array_equal(shown[8], expected)


@pytest.mark.parametrize(
    ("names", "text"),
    [((), "class 1"), (("cat", "$dog$"), "$dog$"), (("cat", "n" * 80), "n" * 18 + "\n")],
)
def test_rows_say_what_a_sample_shows(tmp_path, monkeypatch, names, text):
    figures = []
    monkeypatch.setattr(copies, "save", lambda figure, *_: figures.append(figure))
    info = dataclasses.replace(INFOS["photographs"], class_names=names)
    source = ArraySource(info, PICTURES["photographs"], np.ones(12, np.int64), "some")
    copies.plot_copies(recipe("quickstart"), source, tmp_path / "page.png")
    (figure,) = figures
    figure.savefig(tmp_path / "page.png")  # where a dollar would begin a formula
    assert text in figure.axes[0].get_ylabel()
    plt.close(figure)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def ba_dist(monkeypatch):
    """Runs the command on stand-in data; `opened` is how the samples were asked for."""
    catalog = types.ModuleType("ba_dist.data.catalog")
    opened = []
    monkeypatch.setitem(sys.modules, "ba_dist.data.catalog", catalog)

    def run(*words, source=None):
        catalog.open_source = lambda data, split: opened.append((data, split)) or source
        return CliRunner().invoke(cli.cli, [str(word) for word in words])

    run.opened = opened
    return run


def test_augmentations_of_a_recipe(ba_dist, tmp_path):
    """Every flag of the recipe counts, also for images of different sizes."""
    output = tmp_path / "page.png"
    flags = ["--crop", "random-resized", "--image-size", "48", "--multiplicity", "3"]
    flags += ["--pad-crop", "0", "--mixup", "0.2", "--cutmix", "1", "--auto-augment", "imagenet"]
    done = ba_dist(
        *("plot", "augmentations", "quickstart", "--output", output, "--data-dir", "there"),
        *flags,
        source=large(),
    )
    assert done.exception is None and done.output == f"{output}\n"
    height, width, _ = plt.imread(output).shape
    assert height > 300 and width > 600
    ((data, split),) = ba_dist.opened
    assert (data.data_dir, data.image_size, split) == ("there", 48, "train")


def test_the_page_is_named_after_the_recipe(ba_dist, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = ba_dist("plot", "augmentations", "quickstart", source=small())
    assert done.output == "augmentations-quickstart.png\n"
    assert (tmp_path / "augmentations-quickstart.png").exists()


def test_help_teaches_both(ba_dist):
    out = ba_dist("plot", "--help").output
    assert out.startswith("Usage: cli plot [OPTIONS] RUNS...")
    assert "plot runs/first" in out and "plot augmentations quickstart" in out
    out = ba_dist("plot", "augmentations", "--help").output
    assert out.startswith("Usage: cli plot augmentations [OPTIONS] RECIPE")
    assert "--data-dir" in out and "--output" in out
    assert "[default: resnet8]" in ba_dist("plot", "augmentations", "quickstart", "--help").output


def test_mistakes(ba_dist, tmp_path):
    assert "there is no flag --size" in ba_dist("plot", "augmentations", "--size", "3").output
    assert "RECIPE is missing" in ba_dist("plot", "augmentations").output
    assert "Missing argument 'RUNS...'" in ba_dist("plot").output
    done = ba_dist(
        "plot", "augmentations", "quickstart", "--output", tmp_path / "no" / "p.png", source=small()
    )
    assert "the plot cannot be written" in str(done.exception)


def test_any_other_word_is_a_run(ba_dist, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("first", "augmentations"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text('{"event":"step","step":1,"loss":2.0}\n')
    assert ba_dist("plot", "first", "augmentations").output == "curves-first-augmentations.png\n"
    assert ba_dist("plot", "./augmentations").output == "augmentations/curves.png\n"
    assert ba_dist("plot", "--output", "all.png", "first").output == "all.png\n"
    assert (tmp_path / "all.png").exists() and isinstance(cli.cli.commands["plot"], click.Command)
