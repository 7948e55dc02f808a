"""Where the settings of a run come from: recipes, people's own recipes, files, flags."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ba_dist.cli.settings import Settings, did_you_mean
from ba_dist.config import BASELINES, COMPUTATION, from_dict, options, override, to_dict
from ba_dist.data.catalog import names
from ba_dist.data.catalog.image_datasets import DETECTED
from ba_dist.data.catalog.made import MADE
from ba_dist.data.catalog.names import DATASETS
from ba_dist.data.catalog.prepare import INFOS
from ba_dist.data.catalog.sentence_pairs import NAMES
from ba_dist.data.catalog.text_datasets import TEXTS
from ba_dist.errors import ConfigError
from ba_dist.recipes import baseline_of, recipe, smoke_of, summary

from .test_cli import refused

ROOT = Path(__file__).parents[2]
OWN = '''
import dataclasses
import helper_of_mine
from ba_dist.recipes import recipe

def longer():
    """Quickstart for more epochs."""
    config = recipe("quickstart")
    return dataclasses.replace(config, run=dataclasses.replace(config.run, epochs=helper_of_mine.N))

def nothing():
    return {"epochs": 3}

def broken():
    return recipe("quickstart").run.epoch

def wrong():
    config = recipe("quickstart")
    return dataclasses.replace(config, run=dataclasses.replace(config.run, epochs=0))
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helper_of_mine.py").write_text("N = 20\n")
    (tmp_path / "mine.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("helper_of_mine", None)


def settings_of(folder, text, name="quickstart", file="my.yaml", **flags):
    (folder / file).write_text(text)
    return Settings(name, folder / file, flags).config()


# --- files ----------------------------------------------------------------------------------------


def test_recipe_then_file_then_flags(folder):
    text = "batch_size: 128\nseed: 7\n"
    config = settings_of(folder, text, seed=9)
    expected = override(recipe("quickstart"), {"batch_size": 128, "seed": 9})
    assert config == expected


@pytest.mark.parametrize(
    "text",
    [
        "weight-decay: 1e-3\nlr: 0.1\nsteps: null\nflip: false\nmodel: resnet20\ncrop: none",
        "optimizer: {weight_decay: 0.001, lr: 0.1}\nrun: {steps: }\naugment: {flip: no}\n"
        "model: {model: resnet20}",
        '{"weight_decay": 1e-3, "lr": "0:0.1", "flip": false, "model": "resnet20"}',
    ],
)
def test_flat_in_parts_and_as_json(folder, text):
    changes = {"weight_decay": 1e-3, "lr": ((0.0, 0.1),), "flip": False, "model": "resnet20"}
    assert settings_of(folder, text) == override(recipe("quickstart"), changes)


def test_points_of_rates_are_not_read_as_times(folder):
    config = settings_of(folder, "lr: 0:0.2,5:0.02\n")
    assert config.optimizer.lr == ((0.0, 0.2), (5.0, 0.02))
    with pytest.raises(ConfigError, match=r"my\.yaml: lr: --lr 5:0\.1: epochs must start at 0"):
        settings_of(folder, "lr: 5:0.1\n")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("batch_sice: 3", ["there is no setting 'batch_sice'; did you mean batch_size?"]),
        ("xyzzy: 3", ["there is no setting 'xyzzy'\n"]),
        ("run: {batch_size: 3}", ["there is no setting 'batch_size' in run"]),
        ("batch_size: many", ["batch_size: --batch-size is 'many'; expected int"]),
        ("batch_size: 0", ["batch_size: --batch-size is 0; it must be at least 1"]),
        ("seed: yes", ["seed: --seed is True; expected int"]),
        ("crop: square", ["crop: --crop is 'square'; choose from none"]),
        ("lr: [1, 2]", ["lr: --lr [1, 2] is not a regime"]),
        ("batch: 3", ["batch is 3; expected settings of this part"]),
        ("seed: 1\nseed: 2", ["seed is there twice"]),
        ("epochs", ["holds no settings; expected lines such as `epochs: 5`"]),
        ("a: [", ["cannot be read", "line 1"]),
        ("!!python/object/apply:os.system ['true']", ["could not determine a constructor"]),
        ("", ["holds no settings"]),
    ],
)
def test_what_a_file_cannot_say(ba_dist, folder, text, parts):
    (folder / "my.yaml").write_text(text)
    refused(ba_dist("train", "quickstart", "--config", "my.yaml"), "my.yaml", *parts)


def test_files_that_cannot_be_read(ba_dist, folder):
    for name in ("gone.yaml", "."):
        answer = ba_dist("train", "quickstart", "--config", name)
        refused(answer, f"--config {name} cannot be read")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    refused(ba_dist("train", "quickstart", "--config", "binary.yaml"), "not text in UTF-8")


def test_a_runs_own_file_has_every_value_but_where_it_was(folder):
    config = override(recipe("quickstart"), {"batch_size": 32, "run_dir": "x", "resume": False})
    config = dataclasses.replace(config, recipe="of_mine")
    text = json.dumps({"config": to_dict(config), "layouts": [], "computation": 1})
    expected = override(config, {"run_dir": None, "resume": True, "seed": 3})
    assert settings_of(folder, text, None, "config.json", seed=3) == expected
    named = settings_of(folder, text, "resnet44-cifar10", "config.json", seed=3)
    assert named == dataclasses.replace(expected, recipe="resnet44-cifar10")


def test_a_file_may_name_the_recipe(ba_dist, folder):
    config = settings_of(folder, "recipe: resnet44-cifar100\n", None)
    assert config == recipe("resnet44-cifar100")
    (folder / "sub").mkdir()
    (folder / "sub" / "mine.py").write_text(
        "from ba_dist.recipes import recipe\ndef f(): return recipe('quickstart')"
    )
    text = "recipe: mine.py:f\n"
    assert settings_of(folder, text, None, "sub/my.yaml").recipe == "f"
    (folder / "my.yaml").write_text("seed: 3")
    refused(ba_dist("train", "--config", "my.yaml"), "my.yaml names no `recipe:`")


# --- people's own recipes -------------------------------------------------------------------------


def test_a_function_in_a_file_is_a_recipe(folder):
    config = recipe("mine.py:longer")
    assert config.recipe == "longer" and config.run.epochs == 20
    assert summary("mine.py:longer") == "Quickstart for more epochs."
    assert recipe(str(folder / "mine.py:longer")) == config


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("gone.py:longer", ["the file gone.py of the recipe cannot be read: No such file"]),
        ("mine.py:gone", ["mine.py has no function 'gone'; it has longer, nothing, broken, wrong"]),
        ("mine.py:nothing", ["mine.py:nothing gives dict; expected a ba_dist.Config"]),
        ("mine.py:broken", ["mine.py:broken", "mine.py, line 15: AttributeError", "epoch"]),
        ("mine.py:wrong", ["mine.py, line 19", "--epochs is 0"]),
    ],
)
def test_recipes_that_fail_are_one_message(ba_dist, folder, name, parts):
    answer = ba_dist("train", name)
    refused(answer, *parts)
    assert len(answer[2].splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_there", "line 1: ModuleNotFoundError: No module named 'nothing_there'"),
        ("x = 1\ndef f(:\n", "line 2: SyntaxError: invalid syntax"),
        ("\nraise SystemExit('bye')", "line 2: SystemExit: bye"),
    ],
)
def test_files_that_do_not_run(ba_dist, folder, text, said):
    (folder / "bad.py").write_text(text)
    refused(ba_dist("train", "bad.py:f"), "bad.py", said)


def test_a_job_finds_recipe_and_file_from_anywhere(ba_dist, folder):
    (folder / "my file.yaml").write_text("seed: 3")
    words = ["submit", "mine.py:longer", "--config", "my file.yaml", "--site", "cpu", "--nodes", 1]
    status, script, _ = ba_dist(*words, "--epochs", 2, "--dry-run")
    assert status == 0 and "--job-name=longer\n" in script and "runs/longer-" in script
    assert f"set -- {folder}/mine.py:longer \\\n  '--config={folder}/my file.yaml' \\\n" in script


@pytest.mark.parametrize("first", ["/a b/mine.py:longer", "--config=/a/my.yaml"])
def test_the_job_script_takes_them(first):
    check = 'SITE=cpu; . slurm/lib.sh; SLURM_JOB_ID=7; check_usage "$1"; choose_run_dir "$1"'
    command = ["bash", "-euc", f"{check}; echo $RUN_DIR", "x", first]
    done = subprocess.run(command, capture_output=True, text=True)
    name = "longer" if "py" in first else "my.yaml"
    assert done.stdout.endswith(f"/runs/{name}-7\n"), done.stderr


# --- help and completion --------------------------------------------------------------------------


def test_the_names_in_help_are_those_of_the_tables(ba_dist):
    assert list(DATASETS) == [*INFOS, *DETECTED, *TEXTS, *NAMES, *MADE]
    assert ((*TEXTS, "synthetic-text"), (*NAMES, "synthetic-pairs")) == (names.TEXTS, names.PAIRS)
    for name, info in INFOS.items():
        height, width, channels = info.image_shape
        assert DATASETS[name] == f"{height}x{width}x{channels}  {info.classes} classes"
    # A line may end behind a hyphen.
    text = " ".join(ba_dist("train", "--help")[1].split()).replace("- ", "-")
    assert all(name in text for name in [*DATASETS, "resnet50", "resnetN"])


def test_help_takes_less_than_half_a_second():
    def seconds():
        before = os.times()
        subprocess.run([sys.executable, "-m", "ba_dist", "train", "--help"], capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - before[2] - before[3]

    assert min(seconds() for _ in range(3)) < 0.5  # of a core; others may use the cores meanwhile


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train q", ["quickstart"]),
        ("train quickstart --model resnet4", ["resnet44"]),
        ("train quickstart --dataset cifar", ["cifar10", "cifar100"]),
        ("train quickstart --io b", ["broadcast"]),
        ("recipes resnet5", ["resnet50-imagenet"]),
        ("submit quickstart --batch", ["--batch-size"]),
    ],
)
def test_the_shell_completes(words, expected):
    words = ["ba-dist", *words.split()]
    environment = {
        **os.environ,
        "_BA_DIST_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": f"{len(words) - 1}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "ba_dist"], env=environment, capture_output=True, text=True
    )
    found = [line.removeprefix("plain,") for line in done.stdout.splitlines()]
    assert done.stderr == "" and set(expected) <= set(found)
    assert all(name.startswith(words[-1]) for name in found)


def test_the_line_for_bashrc_makes_bash_complete():
    """As docs/command.md has it, in a bash that has `ba-dist` on its PATH."""
    page = (ROOT / "docs" / "command.md").read_text()
    line = page.split("## Completion")[1].split("```\n")[1].strip()
    clean = {name: value for name, value in os.environ.items() if name != "BASH_ENV"}
    environment = {**clean, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "--norc", "-ec", f"{line}; complete -p ba-dist"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("complete ") and done.stdout.endswith(" ba-dist\n"), done.stderr


def test_names_that_are_near_and_names_that_are_not():
    flags = [option.flag for option in options()]
    assert did_you_mean("--batchsize", flags) == "; did you mean --batch-size?"
    for far in ("--foo", "--xyzzy", "--learning-rate"):
        assert did_you_mean(far, flags) == ""


def test_hints_name_the_commands_own_help(ba_dist):
    for words, command in (
        (["train", "quickstart", "--foo"], "ba-dist train"),
        (["plot", "augmentations", "quickstart", "--foo"], "ba-dist plot augmentations"),
        (["data", "verify"], "ba-dist data verify"),
        (["trian"], "ba-dist"),
    ):
        answer = ba_dist(*words)
        refused(answer, f"Try `{command} --help`.")
        assert len(answer[2].splitlines()) == 2


def test_a_recipe_is_needed(ba_dist):
    for words in (["train"], ["plot", "augmentations"]):
        refused(ba_dist(*words), "RECIPE is missing")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--image-size", 32], "--image-size changes nothing of fashion_mnist without a --crop"),
        (["--image-channels", 3], "--image-channels is for --dataset synthetic"),
        (["--dataset", "synthetic-jpeg", "--image-channels", 1], "--image-channels is for"),
        (["--dataset", "synthetic-text", "--image-size", 32], "--image-size changes nothing of"),
        (["--bptt", 20], "--bptt is of a text, and --dataset is fashion_mnist; leave it out, or"),
        (["--dataset", "synthetic-pairs", "--least-count", 2], "--least-count is of a text, and"),
        (["--dataset", "synthetic", "--subwords", 400], "--subwords is of sentence pairs, and"),
        (["--dataset", "ptb", "--row-tokens", 64], "--row-tokens is of sentence pairs, and"),
    ],
)
def test_flags_that_a_dataset_makes_nothing_of(ba_dist, words, said):
    refused(ba_dist("train", "quickstart", *words), said)


@pytest.mark.parametrize(
    "flags",
    [
        {"dataset": "synthetic", "image_size": 8, "image_channels": 1},
        {"dataset": "cifar10", "image_size": 24, "crop": "random-resized"},
        {"dataset": "of_mine", "image_size": 8, "image_channels": 1, "bptt": 9, "subwords": 300},
        {"dataset": "synthetic-text", "bptt": 9, "context": 3, "least_count": 2},
        {"dataset": "pairs", "languages": "de-en", "row_tokens": 64, "subwords": 300},
    ],
)
def test_flags_that_a_dataset_makes_something_of(flags):
    assert Settings("quickstart", None, flags).config() == override(recipe("quickstart"), flags)


def test_the_regime_of_a_run_is_for_the_batch_of_that_run(tmp_path):
    """Its config.json may be of a version that did not write the batch of a regime down."""
    tree = to_dict(override(recipe("quickstart"), {"batch_size": 128}))
    del tree["optimizer"]["lr_batch_size"]
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"config": tree, "layouts": [], "computation": COMPUTATION}))
    flags = {"batch_size": 512, "lr_scale": "linear"}
    assert Settings(None, file, flags).config().optimizer.lr_batch_size == 128
    assert Settings("quickstart", None, flags).config().optimizer.lr_batch_size == 64
    file = tmp_path / "mine.yaml"
    file.write_text("lr-scale: batch^0.5\nregime-adaptation: true\n")
    rule = Settings("quickstart", file, {}).config().optimizer
    assert (rule.lr_scale, rule.regime_adaptation) == ("batch^0.5", True)


# --- what is derived ------------------------------------------------------------------------------


def settings_from(*, file=None, name="resnet44-cifar10", **flags):
    return Settings(name, file, flags).config()


def test_a_baseline_is_that_of_the_b_and_m_that_were_given_and_other_flags_win_over_it():
    found = settings_from(baseline="fixed-samples", batch_size=32, multiplicity=4, seed=5)
    changes = {"batch_size": 32, "multiplicity": 4, "seed": 5}
    expected = baseline_of(override(recipe("resnet44-cifar10"), changes), "fixed-samples")
    assert found == expected and (found.batch.batch_size, found.run.epochs) == (128, 400)
    shorter = settings_from(baseline="fixed-samples", multiplicity=4, epochs=7)
    assert (shorter.batch.batch_size, shorter.run.epochs) == (256, 7)
    assert shorter.optimizer.lr[1] == (4 * 81, 0.01)


def test_a_small_run_is_made_before_its_baseline():
    found = settings_from(smoke=True, baseline="fixed-samples")
    assert found == baseline_of(smoke_of(recipe("resnet44-cifar10")), "fixed-samples")
    assert found.title == "-".join(["resnet44-cifar10", "fixed-samples", "smoke"])
    given = settings_from(smoke=True, baseline="fixed-samples", multiplicity=3, val_samples=9)
    assert (given.batch.batch_size, given.data.train_samples) == (12, 12)
    assert given.data.val_samples == 9


def test_a_file_may_say_what_is_derived_and_a_flag_wins(folder):
    text = "baseline: fixed-steps\nsmoke: true\nmultiplicity: 2\nepochs: 3\n"
    found = settings_of(folder, text)
    assert (found.baseline, found.smoke, found.batch.multiplicity) == ("fixed-steps", True, 1)
    assert found.run.epochs == 3
    other = settings_of(folder, text, baseline="none", smoke=False)
    assert (other.title, other.batch.multiplicity) == ("quickstart", 2)
    for wrong, says in (("baseline: fixed", "choose from none"), ("smoke: 1", "true or false")):
        with pytest.raises(ConfigError, match=f"my.yaml: .*{says}"):
            settings_of(folder, wrong)


def test_nothing_is_derived_once_more_from_the_file_of_a_run(folder):
    for name in BASELINES:
        config = baseline_of(smoke_of(recipe("quickstart")), name)
        tree = {"config": to_dict(config), "layouts": []}
        (folder / "config.json").write_text(json.dumps(tree))
        for given in (None, "quickstart"):
            assert settings_from(file=folder / "config.json", name=given) == config
            same = settings_from(file=folder / "config.json", name=given, baseline=name, seed=3)
            assert same == override(config, {"seed": 3})
        with pytest.raises(ConfigError, match="--smoke derives them from a recipe"):
            settings_from(file=folder / "config.json", name=None, smoke=False)
    with pytest.raises(ConfigError, match="--baseline derives them from a recipe"):
        settings_from(file=folder / "config.json", name=None, baseline="fixed-steps")
    # Versions before have not said it.
    for part in ("baseline", "smoke"):
        del tree["config"][part]
    assert from_dict(tree["config"]).title == "quickstart"


def test_what_starts_elsewhere_is_told_what_is_derived():
    flags = {"baseline": "fixed-steps", "smoke": True, "seed": 3}
    words = Settings("quickstart", None, flags).words()
    assert words == ["quickstart", "--baseline=fixed-steps", "--smoke"]
