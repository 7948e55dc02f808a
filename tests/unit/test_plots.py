"""`ba-dist plot`: what is drawn of runs, and which files it may write."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.colors import to_hex

from ba_dist.cli import commands as cli
from ba_dist.errors import UserError
from ba_dist.reports import curves, lines, plots, style


def make_run(folder, steps=40, per_epoch=10, multiplicity=2, **config):
    """A run directory with a loss of 1/step and two numbers of each evaluation."""
    folder.mkdir(parents=True)
    batch = {"batch_size": 64, "multiplicity": multiplicity}
    config = {"recipe": "quickstart", "batch": batch, **config}
    facts = {"steps_per_epoch": per_epoch, "config": config}
    (folder / "config.json").write_text(json.dumps(facts))
    events = []
    for step in range(1, steps + 1):
        values = {"loss": 1 / step, "accuracy": step / 100, "lr": 0.1, "grad_norm": 2.0}
        events.append({"event": "step", "step": step, **values})
        if step % per_epoch == 0:
            found = {"val_loss": 2 / step, "val_top1": step / 200}
            events.append({"event": "epoch", "step": step, "epoch": step // per_epoch - 1, **found})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


@pytest.fixture
def drawn(figures_of):
    return figures_of(plots)


def lines_of(figure, title):
    (axis,) = [axis for axis in figure.axes if axis.get_title() == title]
    return axis, axis.get_lines()


def test_training_and_validation_share_a_panel_whose_axis_counts_epochs(tmp_path, drawn):
    plots.plot_runs([make_run(tmp_path / "run", steps=600, per_epoch=150)])
    for title, value, last in (("accuracy", 6.0, 3.0), ("loss", 1 / 600, 2 / 600)):
        axis, (raw, smooth, validation) = lines_of(drawn[0], title)
        assert axis.get_xlabel() == "epoch (150 steps each)"
        assert raw.get_alpha() < 0.5 and raw.get_ydata()[-1] == value
        assert raw.get_xdata()[149] == 1 and len(smooth.get_xdata()) == 600
        assert list(validation.get_xdata()) == [1, 2, 3, 4]
        assert validation.get_ydata()[-1] == pytest.approx(last)
        texts = [text.get_text() for text in axis.get_legend().get_texts()]
        assert texts == [
            *("training, single steps", "training, mean of 21 logged steps", "validation")
        ]
    (legend,) = drawn[0].legends
    (text,) = legend.get_texts()
    assert text.get_text().endswith("/run: quickstart, B = 64, M = 2")


def test_a_baseline_is_named(tmp_path, drawn):
    plots.plot_runs([make_run(tmp_path / "run", baseline="fixed-steps", multiplicity=1)])
    (text,) = drawn[0].legends[0].get_texts()
    assert text.get_text().endswith("/run: quickstart (fixed-steps), B = 64, M = 1")


def test_less_than_an_epoch_is_drawn_over_steps(tmp_path, drawn):
    plots.plot_runs([make_run(tmp_path / "run", steps=8)])
    axis, (line,) = lines_of(drawn[0], "loss")
    assert axis.get_xlabel() == "step" and line.get_xdata()[-1] == 8


def test_runs_of_other_epochs_are_compared_by_epochs(tmp_path, drawn):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", per_epoch=20)]
    plots.plot_runs(runs, tmp_path / "both.pdf")
    axis, lines = lines_of(drawn[0], "learning rate")
    assert axis.get_xlabel() == "epoch"
    assert [line.get_xdata()[-1] for line in lines] == [4, 2]


def looks(lines):
    return [(to_hex(line.get_color()), line.get_marker()) for line in lines]


def test_runs_differ_in_colours_of_the_project_and_in_markers(tmp_path, drawn, figures_of):
    """No two of 49 lines have both alike; in grey the markers tell the first seven apart."""
    every = [(style.color_of(i), style.marker_of(i)) for i in range(49)]
    assert len(set(every)) == 49 and len({marker for _, marker in every[:7]}) == 7
    runs = [make_run(tmp_path / f"{i}", multiplicity=i + 1) for i in range(9)]
    plots.plot_runs(runs, tmp_path / "runs.png")
    _, rates = lines_of(drawn[0], "learning rate")
    assert looks(rates) == looks(drawn[0].legends[0].get_lines()) == every[:9]
    figures = figures_of(curves)
    curves.plot_curves(runs, "epoch", None, tmp_path / "curves.png")
    curves.plot_gradient_norm(runs, "epoch", tmp_path / "norm.png")
    for figure in figures:
        assert looks(figure.legends[0].get_lines()) == every[:9]
        assert set(every[:9]) <= set(looks(figure.axes[0].get_lines()))


@pytest.mark.parametrize("points", [1, 2, 12, 13, 30, 600])
@pytest.mark.parametrize("number", range(9))
def test_a_line_has_a_few_markers_and_one_at_least(points, number):
    first, every = plots.marks_of(number, points)["markevery"]
    assert 1 <= len(range(points)[first::every]) <= 8


@pytest.mark.parametrize("window", [1, 3, 9, 99])
def test_a_running_mean(window):
    values = np.random.default_rng(0).normal(size=20)
    half = window // 2
    expected = [values[max(0, i - half) : i + half + 1].mean() for i in range(20)]
    np.testing.assert_allclose(lines.smooth(values, window), expected)
    assert len(lines.smooth(np.zeros(0), window)) == 0


@pytest.mark.parametrize("name", ["_hidden", "$x_1$", "a" * 200, "Größe 猫"])
@pytest.mark.filterwarnings("error:The label")
def test_any_name_of_a_run_is_shown(tmp_path, drawn, name):
    runs = [make_run(tmp_path / name), make_run(tmp_path / f"{name}2")]
    path = plots.plot_runs(runs, tmp_path / "both.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert all(name[-20:] in text and "M = 2" in text for text in texts)


# --- files ----------------------------------------------------------------------------------------


def plot(*words):
    return CliRunner().invoke(cli.cli, ["plot", *map(str, words)])


def test_a_picture_of_several_runs_is_no_run_s_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "abcde":
        make_run(tmp_path / "runs" / name, steps=3)
    assert plot("runs/a").output == "runs/a/curves.png\n"
    alone = (tmp_path / "runs/a/curves.png").read_bytes()
    assert plot("runs/a", "runs/b").output == "curves-a-b.png\n"
    assert plot(*(f"runs/{name}" for name in "abcde")).output == "curves-a-b-c-and-2-more.png\n"
    assert (tmp_path / "runs/a/curves.png").read_bytes() == alone


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_only_an_earlier_plot_of_the_same_runs_is_replaced(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        make_run(tmp_path / "runs" / name, steps=3)
    output = tmp_path / f"plot.{suffix}"
    for _ in range(2):
        assert plot("runs/a", "runs/b", "--output", output).exit_code == 0
    before = output.read_bytes()
    done = plot("runs/a", "runs/c", "--output", output)
    assert isinstance(done.exception, UserError)
    assert f"{output} is there and is not a plot of the same" in str(done.exception)
    assert output.read_bytes() == before
    output.write_text("an essay")
    assert isinstance(plot("runs/a", "runs/b", "--output", output).exception, UserError)
    assert output.read_text() == "an essay"


def test_a_folder_that_moved_knows_its_plot(tmp_path):
    run = make_run(tmp_path / "run", steps=3)
    plots.plot_runs([run])
    moved = run.rename(tmp_path / "moved")
    assert plots.plot_runs([moved]) == moved / "curves.png"
