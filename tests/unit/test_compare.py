"""`ba-dist compare`: when each run has come how far, and in what they differ."""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from ba_dist.cli import commands as cli
from ba_dist.errors import ConfigError, UserError
from ba_dist.reports.compare import compare, duration

from .histories import change_events, into_perplexity, leave


def run(*words):
    return CliRunner().invoke(cli.cli, ["compare", *map(str, words)], catch_exceptions=False)


@pytest.fixture
def runs(tmp_path):
    """One that gets worse at the end, and one that is better and slower."""
    fast = leave(tmp_path / "fast", [0.5, 0.7, 0.6], multiplicity=1)
    return [fast, leave(tmp_path / "good", [0.4, 0.6, 0.8], multiplicity=4, per_epoch=20)]


def test_by_default_the_best_that_all_reach_is_looked_for(runs):
    found = compare(runs)
    assert (found["to"], found["differs"]) == (0.7, ["multiplicity"])
    fast, good = found["runs"]
    assert (fast["final"], fast["best"], fast["best_step"]) == (0.6, 0.7, 20)
    assert fast["reached"] == {"step": 20, "epochs": 2, "seconds": 20 * 36}
    assert good["reached"] == {"step": 60, "epochs": 3, "seconds": 60 * 36}
    assert (fast["per_second"], fast["settings"]) == (100, {"multiplicity": 1})


def test_a_result_of_ones_own(runs):
    rows = compare(runs, to=0.45)["runs"]
    assert [row["reached"]["step"] for row in rows] == [10, 40]
    rows = compare(runs, to=0.75)["runs"]
    assert [row["reached"] and row["reached"]["step"] for row in rows] == [None, 60]
    with pytest.raises(ConfigError, match="--to is 75; val_top1 is a share"):
        compare(runs, to=75)


def test_of_perplexities_less_is_better(tmp_path):
    first = into_perplexity(leave(tmp_path / "a", [9.0, 7.0, 8.0]))
    second = into_perplexity(leave(tmp_path / "b", [9.0, 8.0, 6.0], seed=1))
    found = compare([first, second])
    assert (found["to"], found["unit"]) == (70, "tokens")
    assert [row["best"] for row in found["runs"]] == [70, 60]
    assert [row["reached"]["step"] for row in found["runs"]] == [20, 30]
    image = leave(tmp_path / "c")
    with pytest.raises(ConfigError, match="judged by val_perplexity, .*c by val_top1"):
        compare([first, image])


def test_runs_that_are_not_finished_and_results_that_are_none(runs):
    def nothing(event):
        return {**event, "val_top1": None} if "val_top1" in event else event

    change_events(runs[0], nothing)
    (runs[0] / "summary.json").unlink()
    fast, good = compare(runs)["runs"]
    assert (fast["finished"], fast["best"], fast["reached"]) == (False, None, None)
    assert (good["finished"], good["reached"]) == (True, None)
    text = run(*runs).output
    assert "fast (not finished)  not finite" in text and "nan" not in text.lower()
    change_events(runs[0], lambda event: event if event["event"] == "step" else None)
    assert compare(runs)["runs"][0]["final"] is None
    assert "fast (not finished)  -" in run(*runs).output


def test_a_last_result_that_is_not_finite_is_not_the_one_before_it(runs):
    def end(event):
        return {**event, "val_top1": None} if event["step"] == 30 else event

    change_events(runs[0], end)
    fast, _ = compare(runs)["runs"]
    assert math.isnan(fast["final"]) and (fast["best"], fast["best_step"]) == (0.7, 20)
    assert run(*runs).output.splitlines()[1].split()[:4] == ["fast", "not", "finite", "70.00%"]
    assert json.loads(run(*runs, "--json").output)["runs"][0]["final"] is None
    text = CliRunner().invoke(cli.cli, ["report", str(runs[0])]).output.strip()
    page = Path(text).read_text()
    assert "not finite" in page and "70.00%, at step 20" in page


def test_a_slow_rank_is_no_step(runs):
    before = compare(runs)["runs"][0]
    with (runs[0] / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "straggler", "step": 33, "rank": 1}) + "\n")
    assert compare(runs)["runs"][0] == before and before["seconds"] == 30 * 36


def test_runs_of_an_earlier_version_have_no_seconds(runs):
    for folder in runs:
        change_events(folder, lambda e: {k: v for k, v in e.items() if k != "seconds"})
    assert [row["reached"]["seconds"] for row in compare(runs)["runs"]] == [None, None]


def test_for_people_and_for_programs(runs):
    lines = [line.split() for line in run(*runs, "--to", 0.6).output.splitlines()]
    head = "final val_top1 best of step steps to 60.00% epochs to it time to it"
    assert " ".join(lines[0]).startswith(head)
    assert lines[1][:6] == ["fast", "60.00%", "70.00%", "20", "20", "2"]
    assert lines[-2:] == [["what", "differs", "fast", "good"], ["multiplicity", "1", "4"]]
    assert json.loads(run(*runs, "--json").output) == compare(runs)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0.0 s"),
        (99.94, "99.9 s"),
        (99.96, "1:40 min"),
        (5999.4, "99:59 min"),
        (5999.6, "1:40 h"),
        (3 * 3600 + 5 * 60 + 59, "3:05 h"),
        (1e6, "277:46 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_folder_of_a_sweep_stands_for_its_runs_that_have_begun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"seed={seed}" for seed in range(3)]
    points = [{"values": {"seed": name[-1]}, "run": name} for name in names]
    Path("sweep").mkdir()
    Path("sweep/sweep.json").write_text(json.dumps({"source": ["quickstart"], "points": points}))
    with pytest.raises(UserError, match="no run of the sweep sweep has begun"):
        run("sweep")
    for name in names[:2]:
        leave(tmp_path / "sweep" / name, seed=int(name[-1]))
    (tmp_path / "sweep" / "logs").mkdir()
    found = json.loads(run("sweep", "--json").output)
    assert [row["run"] for row in found["runs"]] == ["sweep/seed=0", "sweep/seed=1"]
    for words in (["plot", "curves", "sweep"], ["plot", "gradient-norm", "sweep"]):
        done = CliRunner().invoke(cli.cli, words)
        assert "(2 seeds)" in done.output
    assert CliRunner().invoke(cli.cli, ["report", "sweep"]).output == "report-seed=0-seed=1.html\n"
