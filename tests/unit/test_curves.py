"""`ba-dist plot curves` and `gradient-norm`: which lines there are, where, and their names."""

import numpy as np
import pytest
from click.testing import CliRunner

from ba_dist.cli import commands as cli
from ba_dist.errors import ConfigError, UserError
from ba_dist.reports import curves, terminal
from ba_dist.reports.history import differing, read
from ba_dist.reports.lines import labels_of, lines_of
from ba_dist.reports.ticks import ticks_of, ticks_of_log

from .histories import change, change_events, into_perplexity, leave


@pytest.fixture
def drawn(figures_of):
    return figures_of(curves)


def plot(*words):
    return CliRunner().invoke(cli.cli, ["plot", *map(str, words)], catch_exceptions=False)


def dashed(axis):
    return [line for line in axis.get_lines() if line.get_linestyle() == "--"]


def solid(axis):
    return [line for line in axis.get_lines() if line.get_linestyle() == "-"]


@pytest.fixture
def runs(tmp_path):
    """M = 1 with three seeds, M = 4 with one."""
    many = [[0.50, 0.60], [0.40, 0.65], [0.45, 0.70]]
    folders = [
        leave(tmp_path / f"one-{seed}", found, seed=seed, multiplicity=1)
        for seed, found in enumerate(many)
    ]
    return [*folders, leave(tmp_path / "four", [0.7, 0.8], multiplicity=4)]


def test_seeds_are_one_line_in_a_band_and_one_bar(tmp_path, runs, drawn):
    assert plot("curves", *runs, "--output", tmp_path / "x.svg").exit_code == 0
    axis, bars = drawn[0].axes
    errors = 100 - np.array([[50, 60], [40, 65], [45, 70]], float)
    mean, deviation = errors.mean(0), np.sqrt(((errors - errors.mean(0)) ** 2).sum(0) / 2)
    one, four = solid(axis)
    np.testing.assert_allclose(one.get_xdata(), [1, 2])
    np.testing.assert_allclose(one.get_ydata(), mean)
    np.testing.assert_allclose(four.get_ydata(), [30, 20])
    np.testing.assert_allclose(dashed(axis)[0].get_ydata(), mean - 10)
    band = axis.collections[1].get_paths()[0].vertices[:, 1]  # after that of training
    assert band.min() == pytest.approx((mean - deviation).min())
    assert band.max() == pytest.approx((mean + deviation).max())
    heights = [patch.get_height() for patch in bars.patches]
    np.testing.assert_allclose(heights, [mean[-1], 20])
    assert [text.get_text() for text in bars.texts] == ["35.00", "20.00"]
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert names == ["M = 1 (3 seeds)", "M = 4"]
    assert axis.get_ylabel() == "error (%)" and axis.get_xlabel() == "epoch"


@pytest.mark.parametrize(
    ("x", "last"),
    [
        ("epoch", 2),
        ("step", 20),
        ("hours", 20 * 36 / 3600),
        ("samples", 20 * 64),
        ("instances", 20 * 256),
    ],
)
def test_what_the_axis_counts(runs, tmp_path, drawn, x, last):
    assert plot("curves", runs[-1], "--x", x, "--output", tmp_path / "x.png").exit_code == 0
    (line,) = solid(drawn[0].axes[0])
    assert line.get_xdata()[-1] == pytest.approx(last)
    assert plot("gradient-norm", runs[-1], "--x", x, "--output", tmp_path / "y.png").exit_code == 0
    assert solid(drawn[1].axes[0])[0].get_xdata()[-1] == pytest.approx(last)


def test_a_seed_that_has_not_come_so_far_shortens_the_line(runs, tmp_path, drawn):
    change_events(runs[0], lambda event: event if event["step"] <= 10 else None)
    plot("curves", *runs, "--output", tmp_path / "x.png")
    one, four = solid(drawn[0].axes[0])
    assert list(one.get_xdata()) == [1] and list(four.get_xdata()) == [1, 2]
    # Errors after one epoch are not what was found at the end.
    assert [text.get_text() for text in drawn[0].axes[1].texts] == ["55.00\nstep 10", "20.00"]
    told = plot("curves", *runs).output.splitlines()
    assert "M = 1 (3 seeds): 55.00 ± 5.00 % error at step 10, not at the end" in told


def still_running(run, steps, *, evaluated):
    """What a run has written after so many steps, which are less than its epochs are."""

    def edit(event):
        if not evaluated:
            event = {k: v for k, v in event.items() if not k.startswith("val_")}
        return event if event["step"] <= steps else None

    change_events(run, edit)
    (run / "summary.json").unlink()


@pytest.mark.parametrize("steps", [0, 5, 10])
def test_a_seed_without_an_evaluation_yet_is_left_out(runs, tmp_path, drawn, steps):
    still_running(runs[2], steps, evaluated=False)
    plot("curves", *runs, "--output", tmp_path / "x.png")
    axis, bars = drawn[0].axes
    np.testing.assert_allclose(solid(axis)[0].get_ydata(), [55, 37.5])
    np.testing.assert_allclose(dashed(axis)[0].get_ydata(), [45, 27.5])
    assert [text.get_text() for text in bars.texts] == ["37.50", "20.00"]
    assert drawn[0].legends[0].get_texts()[0].get_text() == "M = 1 (2 of 3 seeds)"
    plot("gradient-norm", *runs, "--output", tmp_path / "y.png")
    label = drawn[1].legends[0].get_texts()[0].get_text()
    assert label == ("M = 1 (3 seeds)" if steps else "M = 1 (2 of 3 seeds)")


@pytest.mark.parametrize("metric", [None, "error", "accuracy", "loss"])
def test_before_the_first_evaluation_there_is_no_result(runs, tmp_path, drawn, metric):
    words = ["--metric", metric] if metric else []
    still_running(runs[-1], 10, evaluated=False)
    plot("curves", runs[-1], *words, "--output", tmp_path / "x.png")
    axis, bars = drawn[0].axes
    assert [len(line.get_xdata()) for line in (*dashed(axis), *solid(axis))] == [1, 0]
    assert not bars.patches and not bars.texts
    told = plot("curves", runs[-1], *words).output.splitlines()[-1]
    assert told == f"four: no {metric or 'error'} yet"


def test_before_its_first_evaluation_a_language_model_has_a_curve(tmp_path, drawn):
    run = into_perplexity(leave(tmp_path / "run"))
    still_running(run, 10, evaluated=False)
    plot("curves", run, "--output", tmp_path / "x.png")
    np.testing.assert_allclose(dashed(drawn[0].axes[0])[0].get_ydata(), np.exp(1.5))


def test_a_result_that_is_not_finite_is_not_that_before_it(runs, tmp_path, drawn):
    def edit(event):
        return {**event, "val_top1": None} if "val_top1" in event and event["step"] > 10 else event

    change_events(runs[-1], edit)
    plot("curves", runs[-1], "--output", tmp_path / "x.png")
    assert [text.get_text() for text in drawn[0].axes[1].texts] == ["30.00\nstep 10"]


def test_the_end_of_a_number_of_training_alone(runs, tmp_path, drawn):
    plot("curves", runs[-1], "--metric", "lr", "--output", tmp_path / "x.png")
    assert [text.get_text() for text in drawn[0].axes[1].texts] == ["0.1"]


def test_lines_are_in_order_of_m(tmp_path):
    found = [read(leave(tmp_path / f"{m}", multiplicity=m)) for m in (16, 2, 4)]
    assert [line.label for line in lines_of(found)] == ["M = 2", "M = 4", "M = 16"]


def test_the_seeds_of_one_run_are_called_as_its_recipe(tmp_path):
    found = [read(leave(tmp_path / f"{seed}", seed=seed)) for seed in range(2)]
    assert [line.label for line in lines_of(found)] == ["quickstart (2 seeds)"]


def test_two_runs_of_one_seed_are_two_lines_with_their_names(tmp_path):
    found = [read(leave(tmp_path / name, seed=3)) for name in "ab"]
    assert [line.label for line in lines_of(found)] == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "below"),
    [
        (["quickstart-20261128-233454", "first"], False),
        (["WWWWWWWWWW", "b"], False),
        (["long-name", "nine-more"], True),
        (["long-name", "nine-more", "and-third", "a-fourth."], True),
        ([f"run{number}" for number in range(8)], True),
    ],
)
def test_names_below_bars_do_not_lie_upon_each_other(tmp_path, drawn, names, below):
    found = [leave(tmp_path / name) for name in names]
    assert plot("curves", *found, "--output", tmp_path / "x.png").exit_code == 0
    drawn[0].draw_without_rendering()
    labels = drawn[0].axes[1].get_xticklabels()
    assert bool(labels) == below
    boxes = [label.get_window_extent() for label in labels]
    for left, right in zip(boxes, boxes[1:], strict=False):
        assert left.x1 < right.x0


def test_lines_are_named_by_what_differs(tmp_path):
    many = {"epochs": 2, "momentum": 0.8, "flip": False, "weight_decay": 1e-3}
    found = [
        read(leave(tmp_path / "a", cutout=0, run_dir="x", data_dir="y", weight_decay=1e-3)),
        read(leave(tmp_path / "b", cutout=8, run_dir="z", seed=1)),
    ]
    assert labels_of(found) == ["cutout 0, weight-decay 0.001", "cutout 8, weight-decay 0.0001"]
    found.append(read(leave(tmp_path / "c", cutout=8, **many)))
    # Of many settings those that tell the lines apart.
    assert len(differing(found)) == 6
    assert labels_of(found) == ["flip, cutout 0", "flip, cutout 8", "no flip, cutout 8"]


def test_recipe_and_baseline_are_always_told(tmp_path):
    folders = [leave(tmp_path / name, multiplicity=m) for name, m in (("a", 1), ("b", 4))]
    change(folders[0], "config.json", lambda facts: facts["config"].update(baseline="fixed-steps"))
    found = [read(folder) for folder in folders]
    assert labels_of(found) == ["fixed-steps, M = 1", "batch augmentation, M = 4"]


@pytest.mark.parametrize(
    ("metric", "training", "validation"),
    [("loss", 3 / 20, 4 / 20), ("accuracy", 90, 80), ("error", 10, 20), (None, 10, 20)],
)
def test_other_metrics(runs, tmp_path, drawn, metric, training, validation):
    words = ["--metric", metric] if metric else []
    plot("curves", runs[-1], *words, "--output", tmp_path / "x.png")
    axis = drawn[0].axes[0]
    assert dashed(axis)[0].get_ydata()[-1] == pytest.approx(training)
    assert solid(axis)[0].get_ydata()[-1] == pytest.approx(validation)


def test_perplexity_is_drawn_of_a_language_model(tmp_path, drawn):
    run = into_perplexity(leave(tmp_path / "run", [9.0, 8.0]))
    plot("curves", run, "--output", tmp_path / "x.png")
    axis = drawn[0].axes[0]
    assert axis.get_ylabel() == "perplexity"
    np.testing.assert_allclose(solid(axis)[0].get_ydata(), [90, 80])
    np.testing.assert_allclose(dashed(axis)[0].get_ydata(), np.exp([1.5, 1.5]))


def test_what_is_not_there_is_named(runs):
    with pytest.raises(ConfigError, match="no metric 'bleu'|no run has a metric 'bleu'.*error, "):
        plot("curves", *runs, "--metric", "bleu")
    change_events(runs[0], lambda event: {k: v for k, v in event.items() if k != "seconds"})
    with pytest.raises(UserError, match="one-0 was written by an earlier version.*seconds"):
        plot("curves", *runs, "--x", "hours")
    with pytest.raises(UserError, match="is not a run directory"):
        plot("gradient-norm", runs[0] / "nothing")


def test_the_norm_of_every_step_lies_under_the_mean(tmp_path, drawn):
    run = leave(tmp_path / "run", [0.5] * 30, every=1)
    plot("gradient-norm", run, "--output", tmp_path / "x.png")
    points, mean = drawn[0].axes[0].get_lines()
    steps = np.arange(1, 301)
    np.testing.assert_allclose(points.get_ydata(), 1 + 1 / steps)
    np.testing.assert_allclose(points.get_xdata(), steps / 10)
    assert points.get_alpha() < 0.5
    np.testing.assert_allclose(mean.get_ydata()[100], (1 + 1 / steps[95:106]).mean())


# --- the terminal ---------------------------------------------------------------------------------


def test_without_output_it_is_drawn_on_the_terminal(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    done = plot("curves", *runs)
    lines = done.output.splitlines()
    assert "error (%)" in lines[0] and max(map(len, lines)) <= 70
    assert "\x1b" not in done.output
    assert "M = 1 (3 seeds): 35.00 ± 5.00 % error at the end" in lines
    assert "M = 4: 20.00 % error at the end" in lines
    assert any("● M = 1 (3 seeds), validation" in line for line in lines)
    done = plot("gradient-norm", *runs)
    assert "L2 norm of the gradient" in done.output and "▲ M = 4" in done.output


def test_a_name_commands_no_terminal(tmp_path):
    runs = [leave(tmp_path / f"\x1b[31mred{i}") for i in range(2)]
    for words in (["plot", "curves"], ["plot", "gradient-norm"], ["compare"]):
        done = CliRunner().invoke(cli.cli, [*words, *map(str, runs)])
        assert "?[31mred1" in done.output and "\x1b" not in done.output, words


def test_a_line_of_one_point_or_none_can_be_drawn():
    x = np.array([1.0])
    one, none = terminal.Drawn("one", x, x, 0), terminal.Drawn("none", x, -x, 1)
    assert "● one" in terminal.chart([one, none], "step", "y", log=True)
    assert terminal.chart([none], "step", "y", log=True)


# --- files ----------------------------------------------------------------------------------------


def test_only_an_earlier_plot_of_the_same_is_replaced(runs, tmp_path):
    output = tmp_path / "x.svg"
    for _ in range(2):
        assert plot("curves", *runs, "--output", output).output == f"{output}\n"
    for words in (["curves", runs[0]], ["gradient-norm", *runs]):
        with pytest.raises(UserError, match="is not a plot of the same"):
            plot(*words, "--output", output)


# --- ticks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("low", [-3.7, 0, 1e-9, 0.99, 12345])
@pytest.mark.parametrize("span", [1e-12, 3e-4, 1, 7.3, 4.5e6])
def test_ticks_are_few_and_inside(low, span):
    ticks = ticks_of(low, low + span)
    assert 1 <= len(ticks) <= 8
    slack = 1e-9 * max(abs(low), span)
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)


@pytest.mark.parametrize("low", [-12, -0.3, 0, 5.1])
@pytest.mark.parametrize("span", [0.01, 0.5, 2, 9, 300])
def test_ticks_of_a_logarithmic_axis(low, span):
    ticks = ticks_of_log(low, low + span)
    assert 2 <= len(ticks) <= 12
    assert ticks == sorted(ticks)
    assert all(low - 1e-9 <= np.log10(tick) <= low + span + 1e-9 for tick in ticks)
