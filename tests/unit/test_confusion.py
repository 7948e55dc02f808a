"""Counts of labels and answers, what is told of each class, and the five first answers."""

import numpy as np
import pytest

from ba_dist.config import Augment
from ba_dist.data.augment import Augmentation
from ba_dist.data.sources import ImageInfo
from ba_dist.reports import confusion as confusion_plot
from ba_dist.reports.confusion import plot_confusion
from ba_dist.reports.files import mark_of
from ba_dist.rules.confusion import confusion, per_class, table
from ba_dist.tasks.classification import Classification

ANSWERS = np.array([[0, 0], [0, 0], [0, 2], [1, 1], [1, 2], [1, 2]], np.int32)


def test_rows_are_labels_and_columns_answers():
    expected = np.zeros((4, 4), int)
    for label, answer in ANSWERS:
        expected[label, answer] += 1
    np.testing.assert_array_equal(confusion(ANSWERS, 4), expected)
    assert confusion(np.empty((0, 2), np.int32), 3).tolist() == [[0] * 3] * 3


def test_what_is_told_of_each_class():
    rows = per_class(confusion(ANSWERS, 4), ["cat", "dog"])
    assert [row["name"] for row in rows] == ["cat", "dog", None, None]
    assert [row["samples"] for row in rows] == [3, 3, 0, 0]
    assert [row["top1"] for row in rows] == [2 / 3, 1 / 3, None, None]
    assert [row["precision"] for row in rows] == [1.0, 1.0, 0.0, None]
    assert [(row["taken_for"], row["taken"]) for row in rows[:2]] == [(2, 1), (2, 2)]
    assert rows[2]["taken_for"] is None


def test_the_table_has_a_line_for_each_class():
    lines = table(confusion(ANSWERS, 4), ["cat", "dog"]).splitlines()
    assert lines[1].split() == ["0", "cat", "3", "66.67%", "100.00%", "2:", "1"]
    assert lines[4].split() == ["3", "0", "-", "-"] and len(lines) == 5


@pytest.mark.parametrize("classes", [4, 30, 200])
def test_the_picture_is_drawn_for_few_and_many_classes(tmp_path, classes):
    counts = confusion(ANSWERS, classes)
    output = tmp_path / "c.png"
    path = plot_confusion(counts, ["cat", "dog"], "a run", output=output, mark="mark")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_name_with_a_dollar_is_no_formula(tmp_path, figures_of):
    drawn = figures_of(confusion_plot)
    names = ["$x_{$", "$y$", "a$"]
    title, output = "lr$_{a$, step 3", tmp_path / "c.svg"
    confusion_plot.plot_confusion(np.eye(3, dtype=int), names, title, output=output, mark="mark")
    axis = drawn[0].axes[0]
    assert axis.get_title() == title
    assert [text.get_text() for text in axis.get_xticklabels()] == names


@pytest.mark.parametrize(
    "words", [("plot", "confusion"), ("analyze", "correlation"), ("analyze", "variance")]
)
def test_a_picture_of_another_run_is_not_replaced_and_refused_at_once(ba_dist, tmp_path, words):
    """Before the run is opened, which is not there; before, there was one mark for all runs."""
    output = tmp_path / "c.png"
    mark = mark_of(" ".join(words), [tmp_path / "first"], output)
    counts = confusion(ANSWERS, 3)
    plot_confusion(counts, [], "as such a picture of the first", output=output, mark=mark)
    status, out, err = ba_dist(*words, tmp_path / "second", "--output", output)
    assert (status, out) == (1, "") and f"{output} is there and is not a plot of the same" in err
    status, out, err = ba_dist(*words, tmp_path / "first", "--output", output)
    assert "is not a run directory" in err


def task_of(classes):
    info = ImageInfo("test", (4, 4, 1), classes, (0.5,), (0.3,))
    return Classification(Augmentation(Augment(), info))


@pytest.mark.parametrize("values", ["all differ", "many are equal"])
def test_the_right_class_among_the_first_five(values):
    """Of equal logits the class with the smaller number comes first, as it does for `val_top1`."""
    tf = pytest.importorskip("tensorflow")
    noise = np.random.default_rng(0)
    logits = noise.normal(size=(500, 120))
    if values == "many are equal":
        logits = np.rint(logits * 2)
    labels = np.argsort(-logits, 1, kind="stable")[np.arange(500), np.arange(500) % 10]
    scores = task_of(120).scores(tf.constant(logits, tf.float32), {"labels": tf.constant(labels)})
    np.testing.assert_array_equal(scores["val_top5"][0], np.arange(500) % 10 < 5)
    np.testing.assert_array_equal(scores["val_top1"][0], np.arange(500) % 10 == 0)
    broken = tf.fill((3, 120), np.float32("nan"))
    scores = task_of(120).scores(broken, {"labels": tf.constant([0, 1, 2], tf.int64)})
    assert not np.asarray(scores["val_top5"][0]).any()


def test_five_of_few_classes_tell_nothing():
    assert "val_top5" in task_of(100).validation and "val_top5" not in task_of(99).validation
