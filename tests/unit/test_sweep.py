"""A sweep: which runs there are, what they are started with, and the table of what came of them."""

import json
import math
import re
import shlex
import statistics
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ba_dist.cluster.home import HOME
from ba_dist.config import layout_of, override
from ba_dist.errors import ConfigError, UserError
from ba_dist.recipes import baseline_of, recipe
from ba_dist.sweep import plan, table
from ba_dist.sweep.grid import combinations, points, ranks_within, run_name
from ba_dist.sweep.runs import Runner

from .test_cli import refused

QUICK = ["sweep", "quickstart", "--dataset", "synthetic"]


# --- the grid -----------------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 5), min_size=1)))
def test_every_combination_once(axes):
    found = combinations(axes)
    assert len(found) == math.prod(len(set(values)) for values in axes.values())
    assert len({tuple(point.items()) for point in found}) == len(found)
    assert all(list(point) == list(axes) for point in found)
    assert all(point[name] in values for point in found for name, values in axes.items())


@given(st.lists(st.dictionaries(st.sampled_from(["lr_scale", "model"]), st.text()), min_size=2))
def test_names_are_folders_and_tell_points_apart(values):
    names = {}
    for point in values:
        name = run_name(point)
        assert re.fullmatch(r"[A-Za-z0-9_.,=+-]{1,120}", name) and name not in (".", "..")
        assert names.setdefault(name, point) == point


def test_names_say_what_differs():
    assert run_name({"multiplicity": 2, "lr_scale": 1.0, "seed": 0}) == (
        "multiplicity=2,lr-scale=1,seed=0"
    )
    assert run_name({"lr_scale": 2.5, "baseline": "none"}) == "lr-scale=2.5,baseline=none"
    assert run_name({}) == "run"
    assert run_name({"data_dir": "../../etc"}).startswith("data-dir=.._.._etc,")


def commands_of(answer):
    """The words behind `train` of each command of a dry run."""
    status, out, err = answer
    assert (status, err) == (0, "")
    return [shlex.split(line)[shlex.split(line).index("train") :] for line in out.splitlines()]


def test_runs_that_are_the_same_are_trained_once(ba_dist):
    words = ["--baseline", "fixed-steps,fixed-samples,none", "--multiplicity", "1,2,4"]
    found = commands_of(ba_dist(*QUICK, *words, "--output", "out", "-n", 2, "--dry-run"))
    assert [line[-1] for line in found] == [
        f"--run-dir=out/baseline={baseline},multiplicity={copies}"
        for baseline, copies in (
            *(("fixed-steps", 1), ("fixed-samples", 2), ("fixed-samples", 4)),
            *(("none", 2), ("none", 4)),
        )
    ]
    first = ["train", "quickstart", "--baseline=fixed-samples", "--multiplicity=2"]
    assert found[1][:-1] == [*first, "--dataset=synthetic"]


@pytest.mark.parametrize(
    ("baseline", "most", "expected"),
    [("none", 40, 40), ("none", 41, 40), ("fixed-steps", 40, 2), ("fixed-samples", 40, 40)],
)
def test_a_run_takes_the_ranks_that_leave_its_ghost_batches_whole(baseline, most, expected):
    config = baseline_of(recipe("resnet44-cifar10"), baseline)
    ranks = ranks_within(config, most)
    assert ranks == expected and layout_of(config, ranks).ghost_batch == 32
    few = baseline_of(
        override(recipe("quickstart"), {"multiplicity": 8, "epochs": 8}), "fixed-compute"
    )
    assert ranks_within(few, 16) == 8 and layout_of(few, 8).ghost_batch == 8


def test_points_of_equal_settings_share_a_run():
    config = recipe("quickstart")
    other = override(config, {"seed": 3})
    made = points([{"a": 1}, {"a": 2}, {"a": 3}], [config, other, config])
    assert [point.run for point in made] == ["a=1", "a=2", "a=1"]


@pytest.mark.parametrize(
    ("words", "axis"),
    [
        (["--lr", "0:0.1,3:0.01", "--lr", "0.2"], ["--lr=0:0.1,3:0.01", "--lr=0:0.2"]),
        (["--flip", "--no-flip"], ["--flip", "--no-flip"]),
        (["--seeds", "0,1", "--seed", "7"], [f"--seed={n}" for n in (0, 1, 7)]),
        (["--optimizer", "sgd, adam"], ["--optimizer=sgd", "--optimizer=adam"]),
        (["--lr-scale", "1,1,2.5"], ["--lr-scale=1.0", "--lr-scale=2.5"]),
        (["--data-dir", "a,b", "--data-dir", "c d"], ["--data-dir=a,b", "--data-dir=c d"]),
        (["--smoke", "--precision", "fp32,bf16"], ["--precision=fp32", "--precision=bf16"]),
    ],
)
def test_every_flag_may_have_several_values(ba_dist, words, axis):
    found = commands_of(ba_dist(*QUICK, *words, "--dry-run"))
    assert len(found) == len(axis)
    assert all(flag in line for flag, line in zip(axis, found, strict=True))
    assert all(("--smoke" in line) == ("--smoke" in words) for line in found)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--multiplicity", "1,x"], ["'x' is not a valid integer"]),
        (["--multiplicity", "1,0"], ["0 is not in the range"]),
        (["--baseline", "none,fixed"], ["'fixed' is not one of"]),
        (["--multiplicity", "2,3", "--baseline", "fixed-compute"], ["multiplicity=2: ", "E / M"]),
        (["--group-size", "1,3", "-n", "2"], ["group-size=3: ", "--group-size 3 must divide"]),
        (["--model", "resnet8,resnet9"], ["model=resnet9: ", "'resnet9' is unknown"]),
        (["--run-dir", "x"], ["there is no flag --run-dir"]),
        (["--nodes", "2"], ["--slurm SITE"]),
        (["--slurm", "cpu"], ["--nodes"]),
        (["--slurm", "cpu", "--nodes", "1", "-n", "2"], ["--slurm SITE"]),
        (["--account", "me"], ["--slurm SITE"]),
        (["--slurm", "mars", "--nodes", "1"], ["no site 'mars'"]),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_run(
    ba_dist,
    tmp_path,
    words,
    expected,
):
    refused(ba_dist(*QUICK, *words, "--output", tmp_path / "out"), *expected)
    assert not list(tmp_path.iterdir())


# --- its folder ---------------------------------------------------------------------------------


def plan_for(*names, source=("quickstart",), axis="seed"):
    return plan.Plan(list(source), [plan.Row({axis: name}, f"{axis}={name}") for name in names])


def test_the_same_command_goes_on_and_more_values_may_join(tmp_path):
    folder = tmp_path / "sweep"
    for names in ("0", "01", "01", "2"):
        plan.keep(folder, plan_for(*names))
    assert sorted(row.run for row in plan.read(folder).rows) == ["seed=0", "seed=1", "seed=2"]
    with pytest.raises(ConfigError, match="its runs have quickstart, now quickstart --lr=0.1"):
        plan.keep(folder, plan_for("0", source=("quickstart", "--lr=0.1")))
    with pytest.raises(ConfigError, match="differ in seed, now lr_scale"):
        plan.keep(folder, plan_for("0", axis="lr_scale"))
    assert len(plan.read(folder).rows) == 3


def test_folders_of_something_else_are_left_alone(tmp_path, ba_dist):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ConfigError, match="is there and is no sweep"):
        plan.keep(tmp_path, plan_for("0"))
    refused(ba_dist("sweep", "--table", tmp_path), "it has no sweep.json")
    refused(ba_dist("sweep", "--table", tmp_path / "no"), "it is not there", status=1)
    (tmp_path / "sweep.json").write_text('{"source": []}')
    refused(ba_dist("sweep", "--table", tmp_path), "sweep.json is corrupt")


# --- the table ----------------------------------------------------------------------------------


def finish(folder, run, **results):
    (folder / run).mkdir(parents=True)
    (folder / run / "summary.json").write_text(json.dumps({"val_loss": 1.0, **results}))


def test_the_table_is_mean_and_deviation_over_seeds(tmp_path, ba_dist):
    values = {"1": [0.91, 0.93, 0.95], "2": [0.96, 0.97]}
    rows = [
        plan.Row({"multiplicity": copies, "seed": str(seed)}, f"{copies}-{seed}")
        for copies in values
        for seed in range(3)
    ]
    plan.keep(tmp_path / "s", plan.Plan(["quickstart", "--epochs=3"], rows))
    for copies, found in values.items():
        for seed, value in enumerate(found):
            finish(tmp_path / "s", f"{copies}-{seed}", val_top1=value)
    status, out, _ = ba_dist("sweep", "--table", tmp_path / "s")
    assert status == 0
    lines = [re.split(r" {2,}", line) for line in out.splitlines()]
    assert lines[2] == ["multiplicity", "runs", "val_loss", "val_top1"]
    assert lines[3] == ["1", "3", "1 ± 0", "93.00 ± 2.00 %"]
    assert lines[4] == ["2", "2 of 3", "1 ± 0", "96.50 ± 0.71 %"]
    assert (tmp_path / "s" / "table.txt").read_text() == out
    assert "| 1 | 3 | 1 ± 0 | 93.00 ± 2.00 % |" in (tmp_path / "s" / "table.md").read_text()
    found = json.loads((tmp_path / "s" / "table.json").read_text())["rows"]
    for row, (copies, numbers) in zip(found, values.items(), strict=True):
        assert row["settings"] == {"multiplicity": copies}
        result = row["results"]["val_top1"]
        assert result["values"] == numbers
        assert result["mean"] == pytest.approx(statistics.mean(numbers))
        assert result["deviation"] == pytest.approx(statistics.stdev(numbers))
    assert found[1]["missing"] == ["2-2"]


def test_one_run_has_no_deviation_and_what_is_not_finite_no_mean(tmp_path):
    plan.keep(tmp_path / "s", made := plan_for("0", "1"))
    finish(tmp_path / "s", "seed=0", val_perplexity=58.8)
    (row,) = table.collect(tmp_path / "s", made)
    assert row["results"]["val_perplexity"] == {"values": [58.8], "mean": 58.8, "deviation": None}
    assert "58.8" in table.write(tmp_path / "s", made)
    finish(tmp_path / "s", "seed=1", val_perplexity=None)
    (row,) = table.collect(tmp_path / "s", made)
    assert row["results"]["val_perplexity"]["mean"] is None
    assert "not finite" in table.write(tmp_path / "s", made)
    (tmp_path / "s" / "seed=0" / "summary.json").write_text("{")
    with pytest.raises(UserError, match="summary.json is corrupt"):
        table.collect(tmp_path / "s", made)


# --- running them -------------------------------------------------------------------------------

# Stands for the launcher: does to its run directory what the words say.
RANKS = """
import pathlib, sys
how, run = sys.argv[1:]
print("a line")
if how == "fails":
    sys.exit("ba-dist: no data here")
if how == "crashes":
    sys.exit(9)
if how == "works":
    pathlib.Path(run).mkdir()
    pathlib.Path(run, "summary.json").write_text("{}")
"""


def test_finished_runs_stay_and_one_that_fails_does_not_end_the_others(tmp_path):
    said = []
    words = {name: [name.split(";")[0], str(tmp_path / name)] for name in ("works", "fails")}
    words |= {
        f"{how};x": [how, str(tmp_path / f"{how};x")] for how in ("crashes", "empty", "works")
    }
    finish(tmp_path, "before")
    calls = {name: ([sys.executable, "-c", RANKS, *line], {}) for name, line in words.items()}
    outcome = Runner(tmp_path, said.append).all({"before": (["false"], {}), **calls})
    assert not outcome.stopped and list(outcome.failed) == ["fails", "crashes;x", "empty;x"]
    assert outcome.failed["fails"].startswith("no data here (")
    assert outcome.failed["crashes;x"].startswith("exit status 9 (")
    assert outcome.failed["empty;x"].startswith("exit status 0 (")
    assert said[0] == "1 of 6 runs were finished before" and "finished: works;x" in said
    assert (tmp_path / "logs" / "works.log").read_text() == "a line\n"
    again = Runner(tmp_path, said.append).all(calls)
    assert list(again.failed) == list(outcome.failed)
    logs = {name: (tmp_path / "logs" / f"{name}.log").read_text() for name in calls}
    assert {name: text.count("a line\n") for name, text in logs.items()} == {
        **dict.fromkeys(outcome.failed, 2),
        **dict.fromkeys(("works", "works;x"), 1),
    }


# --- as a job array -----------------------------------------------------------------------------


def test_a_job_array_has_a_task_for_each_run_that_is_not_finished(ba_dist, tmp_path):
    words = [*QUICK, "--seeds", "0,1,2", "--slurm", "cpu", "--nodes", 2, "--output", tmp_path / "s"]
    words += ["--data-dir", "a'b $(touch pwned)", "--time", "01:00:00", "--dry-run"]
    finish(tmp_path / "s", "seed=1")
    status, script, err = ba_dist(*words)
    assert (status, err) == (0, "")
    assert re.search(r"^#SBATCH --array=0-1$", script, re.MULTILINE)
    log = re.escape(f"{tmp_path}/s/job/%A_%a.log")
    assert re.search(rf"^#SBATCH --output={log}$", script, re.MULTILINE)
    assert re.search(r"^#SBATCH --time=01:00:00$", script, re.MULTILINE)
    # As bash reads it: the words that each task would train with.
    head = script.partition("\nSITE=")[0] + '\nprintf "%s\\n" "$@"\n'
    for task, seed in enumerate((0, 2)):
        done = subprocess.run(
            ["bash", "-c", head, "job", "--more"],
            env={"SLURM_ARRAY_TASK_ID": str(task), "PATH": "/bin"},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            *("quickstart", "--dataset=synthetic", "--data-dir=a'b $(touch pwned)"),
            *(f"--seed={seed}", f"--run-dir={tmp_path}/s/seed={seed}", "--more"),
        ]
    other = subprocess.run(
        ["bash", "-c", head], env={"PATH": "/bin"}, capture_output=True, text=True
    )
    assert other.returncode == 2 and "no such task" in other.stderr
    assert not list(tmp_path.rglob("pwned")) and HOME.exists()


def test_a_run_that_cannot_have_all_ranks_of_its_task_is_refused(ba_dist, tmp_path):
    words = [
        *QUICK,
        "--batch-size",
        64,
        "--multiplicity",
        "1,4",
        "--slurm",
        "cpu",
        "--output",
        tmp_path,
    ]
    status, _, err = ba_dist(*words, "--nodes", 3, "--ranks-per-node", 4, "--dry-run")
    assert (
        status == 2 and "multiplicity=1: --batch-size 64 must divide by the number of groups" in err
    )
    status, _, err = ba_dist(*words, "--nodes", 2, "--ranks-per-node", 4, "--dry-run")
    assert status == 0 and "multiplicity=1 has whole ghost batches on 2 ranks, not on 8" in err
