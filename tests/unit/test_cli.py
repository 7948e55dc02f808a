"""What a person gets from the command line: help at once, and one message for every mistake."""

import json
import re
import subprocess
import sys

import click
import numpy as np
import pytest

from ba_dist import __version__, cli
from ba_dist.config import PARTS, Config, options
from ba_dist.data.catalog.names import DATASETS
from ba_dist.recipes import RECIPES, recipe
from ba_dist.recipes.published import published
from ba_dist.run import checkpoint

from .test_audit import LAYOUT, SAMPLES, entries_of, write
from .traces import produce, small

HEAVY = ["tensorflow", "keras", "mpi4py", "horovod", "tensorflow_datasets", "sklearn"]
OPTIONS = list(options())


def refused(answer, *parts, status=2):
    """The answer is one message on stderr that holds these parts."""
    found, out, err = answer
    assert found == status and out == ""
    assert err.startswith("ba-dist: ") and "Traceback" not in err
    assert not [part for part in parts if part not in err], err


def commands(group=cli.cli, words=()):
    yield words
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name)


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(ba_dist, words, flag):
    status, out, err = ba_dist(*words, flag)
    assert (status, err) == (0, "")
    assert out.startswith("Usage: ba-dist") and "Traceback" not in out


def test_the_commands():
    promised = {"train", "submit", "eval", "data", "recipes", "export", "plot", "audit", "doctor"}
    promised |= {"compare", "report"}
    assert promised <= set(cli.cli.commands)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "quickstart", "-h"]])
def test_help_loads_nothing_heavy(words):
    program = (
        f"import sys; sys.argv = ['ba-dist', *{words!r}]\n"
        "from ba_dist.cli import main\n"
        "main()\n"
        f"print('loaded:', [m for m in {[*HEAVY, 'numpy']!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.endswith("loaded: []\n")


def test_importing_the_package_loads_nothing_at_all():
    program = f"import sys, ba_dist; print([m for m in {[*HEAVY, 'numpy']!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_as_a_module_and_its_version():
    command = [sys.executable, "-m", "ba_dist", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert __version__ in done.stdout and done.returncode == 0


def test_help_of_train_shows_every_flag_with_the_recipes_values(ba_dist):
    for config in (Config(""), *map(recipe, RECIPES)):
        sections = help_of(ba_dist, "train", config.recipe)
        assert list(sections) == ["Options", *(part.title() for part in PARTS)]
        for option in OPTIONS:
            shown, value = sections[option.part.title()][option.flag], option.of(config)
            assert option.help.replace("- ", "-") in shown
            found = re.search(r"\[default: ([^];]+)", shown)
            # A value that is longer than a line is broken where the line ends.
            expected = expected_default(option, value)
            assert (found and found[1].replace(" ", "")) == (expected and expected.replace(" ", ""))


def expected_default(option, value):
    if option.type is bool:
        return option.flag[2:] if value else f"no-{option.flag[2:]}"
    return None if value is None else option.text(value)


def test_help_of_submit_shows_its_own_flags_before_the_recipes_values(ba_dist):
    sections = help_of(ba_dist, "submit", "resnet44-cifar10")
    assert list(sections) == ["Options", *(part.title() for part in PARTS)]
    assert {"--site", "--nodes", "--dry-run", "-h"} <= set(sections["Options"])
    assert "[default: 40; x>=1]" in sections["Batch"]["--multiplicity"]


def help_of(ba_dist, *words):
    """Title → flag → what a command's --help says of it."""
    status, out, err = ba_dist(*filter(None, words), "--help")
    assert (status, err) == (0, "")
    sections = {}
    for line in out.splitlines():
        if title := re.fullmatch(r"([A-Z][a-z]+)( \(.+\))?:", line):
            entries = sections.setdefault(title[1], {})
        elif sections and (flag := re.match(r"  (-[a-z0-9-]+)\S*", line)):
            text = entries[flag[1]] = []
        if sections and not title:
            text.append(line)
    return {
        title: {f: " ".join(" ".join(text).split()).replace("- ", "-") for f, text in flags.items()}
        for title, flags in sections.items()
    }


def test_what_help_shows_of_a_recipe_is_not_taken_as_given(ba_dist):
    help_of(ba_dist, "submit", "resnet50-imagenet")
    words = ["submit", "quickstart", "--site", "cpu", "--nodes", 1, "--seed", 3, "--dry-run"]
    script = ba_dist(*words)[1]
    assert [o.flag for o in OPTIONS if f"{o.flag}=" in script] == ["--seed", "--run-dir"]


@pytest.mark.parametrize("words", [[], ["data"]])
def test_a_bare_group_shows_its_help(ba_dist, words):
    status, out, err = ba_dist(*words)
    assert status == 2 and (out + err).startswith("Usage: ba-dist")
    assert "Commands:" in err and "Try `ba-dist" not in err


# --- mistakes -----------------------------------------------------------------------------------


def test_unknown_flags(ba_dist):
    answer = ba_dist("train", "quickstart", "--batchsize", "3")
    refused(answer, "there is no flag --batchsize; did you mean --batch-size?\n")
    refused(ba_dist("train", "quickstart", "--foo"), "there is no flag --foo\n")
    assert "mean" not in ba_dist("train", "quickstart", "--injekt", "x")[2]


def test_unknown_commands(ba_dist):
    refused(ba_dist("trian"), "'trian'", "'train'")
    refused(ba_dist("data", "prepair"), "'prepair'", "'prepare'")


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.choices], ids=lambda o: o.name)
def test_wrong_choices(ba_dist, option):
    answer = ba_dist("train", "quickstart", option.flag, "other")
    refused(answer, option.flag, "'other'", *option.choices)


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.low is not None], ids=lambda o: o.name)
@pytest.mark.parametrize("value", ["-1", "many", "nan", "", "1e400"])
def test_wrong_numbers(ba_dist, option, value):
    refused(ba_dist("train", "quickstart", option.flag, value), option.flag)


def test_limits_are_said(ba_dist):
    refused(ba_dist("train", "quickstart", "--steps", "0"), "--steps", "0 is not in", "x>=1")
    refused(ba_dist("train", "quickstart", "--momentum", "1.5"), "0.0<=x<=1.0")


@pytest.mark.parametrize("text", ["fast", "0.1,0.2", "5:0.1", "0:0.1,0:0.2"])
def test_wrong_regimes(ba_dist, text):
    expected = "epochs must start at 0" if ":" in text else "EPOCH:RATE"
    refused(ba_dist("train", "quickstart", "--lr", text), "--lr", text, expected)


def test_recipes_that_are_not_there(ba_dist):
    refused(ba_dist("train"), "RECIPE")
    for words in (["train", "resnet45"], ["recipes", "resnet45"]):
        refused(ba_dist(*words), "there is no recipe 'resnet45'", *RECIPES)
    refused(ba_dist("train", "quickstart", "again"), "again")


def test_datasets_that_are_not_there(ba_dist, tmp_path):
    for command in ("prepare", "index", "verify"):
        answer = ba_dist("data", command, "mnits")
        refused(answer, "'mnits' is unknown", "cifar10", "imagenet", "synthetic-jpeg", status=1)
    for name in (name for name in DATASETS if name.startswith("synthetic")):
        refused(ba_dist("data", "prepare", name), name, "needs no preparation", status=1)
    answer = ba_dist("data", "prepare", "cifar10", "--data-dir", tmp_path / "gone")
    refused(answer, str(tmp_path / "gone"), status=1)


@pytest.mark.parametrize("words", [["audit"], ["export", "--output", "weights.npz"]])
def test_runs_that_are_not_there(ba_dist, tmp_path, words):
    (tmp_path / "file").write_text("")
    for name in ("gone", "file", "."):
        refused(ba_dist(*words, tmp_path / name), str(tmp_path / name), status=1)


def test_a_folder_in_the_place_of_a_machine_file(ba_dist, tmp_path):
    refused(ba_dist("calibrate", "--output", tmp_path), "--output", f"'{tmp_path}' is a directory")


# --- commands that need one process ---------------------------------------------------------------


def test_recipes(ba_dist):
    status, out, _ = ba_dist("recipes")
    head, *rows = (re.split(r" {2,}", line) for line in out.splitlines())
    assert status == 0 and [row[0] for row in rows] == list(RECIPES)
    assert max(map(len, out.splitlines())) <= 100
    found = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert found["wrn28-10-cifar100"] == {
        **{"recipe": "wrn28-10-cifar100", "network": "wrn28-10", "dataset": "cifar100"},
        **{"B": "64", "M": "10", "length": "200"},
        **{"published": "79.85→83.45", "where": "t2, t4"},
    }
    for name, length, numbers, where in (
        ("transformer-wmt16", "100k st", "26.88→27.49", "t2"),
        ("lstm-ptb", "500", "58.80→58.60", "t2"),
        ("resnet50-imagenet-23epochs", "23", "-→75.70", "f4"),
        ("resnet50-imagenet-lars", "90", "-", "-"),
    ):
        row = found[name]
        assert (row["length"], row["published"], row["where"]) == (length, numbers, where)
    assert found["quickstart"]["published"] == found["quickstart"]["where"] == "-"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_shows_every_flag(ba_dist, name):
    status, out, _ = ba_dist("recipes", name)
    lines = out.splitlines()
    shown = dict(line.split()[:2] for line in lines if line.startswith("  --"))
    assert status == 0 and list(shown) == [o.flag for o in OPTIONS]
    config = RECIPES[name]()
    assert shown["--batch-size"] == str(config.batch.batch_size)
    assert f" -- train {name}" in lines[1]
    rows = published(name)
    told = [line for line in lines if line.startswith("the paper, ")]
    assert told == lines[2 : 2 + len(rows)]
    for line, row in zip(told, rows, strict=True):
        assert f"the paper, {row.kind} {row.number}, {row.measure}: " in line
        assert f"batch augmentation {row.augmented:.2f}" in line
    assert shown["--dataset"] == config.data.dataset and shown["--group-size"] == "-"


def test_datasets(ba_dist):
    _, out, _ = ba_dist("data", "list")
    names = [line.split()[0] for line in out.splitlines()]
    arrays = ["fashion_mnist", "cifar10", "cifar100", "digits"]
    texts = ["ptb", "text", "bible-kjv", "fortunes"]
    pairs = ["gettext-en-de", "wmt16-en-de", "pairs"]
    made = [f"synthetic{kind}" for kind in ("", "-colour", "-jpeg", "-text", "-pairs")]
    assert names == [*arrays, "imagenet", "pictures", *texts, *pairs, *made, "NAME"]


def test_export_writes_every_variable_under_its_name(ba_dist, tmp_path):
    arrays = {"model/conv/kernel": np.ones((3, 3), np.float32), "velocity/conv/kernel": np.ones(1)}
    arrays["model/seed"] = np.array([1, 2], np.uint32)
    folder = checkpoint.folder_of(tmp_path)
    checkpoint.save(folder, checkpoint.Checkpoint(7, arrays, {}), 1)
    status, out, _ = ba_dist("export", tmp_path, "--output", tmp_path / "w.npz")
    assert status == 0 and "2 variables of step 7" in out
    with np.load(tmp_path / "w.npz", allow_pickle=False) as found:
        assert set(found) == {"conv/kernel", "seed"}
        assert np.array_equal(found["conv/kernel"], arrays["model/conv/kernel"])
    answer = ba_dist("export", tmp_path, "--output", tmp_path / "no" / "w.npz")
    refused(answer, "cannot be written", status=1)


def test_audit_says_what_it_found(ba_dist, tmp_path):
    trace = entries_of(LAYOUT, SAMPLES, range(3))
    write(tmp_path, [(0, LAYOUT)], SAMPLES, trace)
    clean = "clean: 3 steps, every invariant held; pixels were not checked\n"
    status, out, _ = ba_dist("audit", tmp_path, "--no-render")
    assert status == 0 and out.endswith(clean)
    trace[1][2]["copies"][0] ^= 1
    write(tmp_path, [(0, LAYOUT)], SAMPLES, trace)
    status, out, _ = ba_dist("audit", tmp_path, "--no-render")
    assert status == 1 and "step 2, rank 1: copies are not those" in out
    assert out.endswith("problem(s) in 3 steps; pixels were not checked\n")


def test_audit_renders_pixels_anew_and_says_how_many(ba_dist, tmp_path):
    run = produce(tmp_path / "run", small(), steps=2)
    status, out, _ = ba_dist("audit", run)
    assert (status, out.splitlines()) == (
        0,
        [
            "note: 256 instances were rendered anew from data and key",
            "clean: 2 steps, every invariant held",
        ],
    )
    assert "note: 16 instances" in ba_dist("audit", run, "--render", 2)[1]
    refused(ba_dist("audit", run, "--render", 0), "--render", "0 is not in", "x>=1")
    refused(ba_dist("audit", run, "--render", 2, "--no-render"), "--render", "--no-render")


def test_audit_where_the_data_is_not(ba_dist, tmp_path):
    run = produce(tmp_path / "run", small(), steps=2)
    facts = json.loads((run / "config.json").read_text())
    facts["config"]["data"]["data_dir"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(facts))
    answer = ba_dist("audit", run)
    refused(answer, "cannot be opened here", str(tmp_path / "gone"), "--no-render", status=1)
    assert ba_dist("audit", run, "--no-render")[0] == 0
    (run / "trace" / "rank-00001.jsonl").unlink()
    refused(ba_dist("audit", run), "rank-00001.jsonl is missing; train with --trace", status=1)


def test_averages_need_copies(ba_dist):
    status, _, err = ba_dist("eval", "runs/none", "--tta-average", "logits")
    assert status == 2 and "--tta-average needs --tta N" in err
    status, _, err = ba_dist("eval", "runs/none", "--tta", 0)
    assert status == 2 and "--tta" in err
    status, _, err = ba_dist("eval", "runs/none", "--tta", 2, "--tta-average", "medians")
    assert status == 2 and "logits" in err
