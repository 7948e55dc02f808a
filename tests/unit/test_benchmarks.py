"""The rules by which benchmarks turn trials into figures, and what they tell a person."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]
BENCHMARKS = ("group_io", "instances", "throughput", "scaling", "overlap", "order", "memory")
BENCHMARKS += ("ngram", "step_rivals", "startup", "accuracy")
BENCHMARKS += ("prediction", "prediction_links", "many_ranks", "exchange_links")
SITE_CHECK = re.compile(r"Img/sec per (GPU|CPU): +([0-9.]+) +\+-([0-9.]+)")


@pytest.fixture(autouse=True)
def folder_of_programs(monkeypatch):
    """Programs import what lies beside them."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def run(name, *words):
    """Runs a benchmark in one process, as a person would outside of MPI."""
    hidden = ("OMPI_", "PMIX_", "PMI_", "SLURM_")
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if not name.startswith(hidden)},
    )


# --- statistics -----------------------------------------------------------------------------------


def test_median_and_deviation_of_trials():
    from harness import measure

    found = measure([1, 2, 9])
    assert (found.median, found.trials) == (2, 3)
    assert found.deviation == pytest.approx(np.std([1, 2, 9], ddof=1))
    assert measure([5]).deviation == 0
    with pytest.raises(ValueError, match="no trial"):
        measure([])


def test_the_first_batches_of_a_turn_do_not_count():
    from contenders import WARM_UP, rate

    slow = np.arange(1, WARM_UP + 1) * 10.0
    times = [*slow, *(slow[-1] + np.arange(1, 11) * 0.5)]
    assert rate(times, 64) == pytest.approx(64 / 0.5)


def test_rates_are_compared_round_by_round():
    from group_io import results_of

    results = results_of({"replicate": [100, 10], "cooperative": [200, 20], "tf.data": [50, 5]}, 2)
    cooperative = results[1]
    assert cooperative["to_replicate"]["median"] == 2
    assert cooperative["to_tf_data"]["median"] == 4
    assert cooperative["to_tf_data"]["deviation"] == 0  # though the rounds differ tenfold


def test_a_total_is_the_sum_over_ranks():
    from throughput import result_of

    from ba_dist.rules.layout import Layout

    rates = np.array([[10.0, 20.0, 30.0], [30.0, 40.0, 20.0]])
    result = result_of("ba_dist", 4, Layout(2, 1, 8), rates)
    assert result["images_per_second"]["median"] == 50  # of 40, 60, 50
    assert result["images_per_second_per_rank"]["median"] == 25


def test_a_step_is_split_into_its_parts():
    from scaling import add_ratios, result_of, table

    from ba_dist.rules.layout import Layout

    seconds = np.array([[[0.1, 0.2, 0.2]] * 3, [[0.3, 0.2, 0.0]] * 3])
    results = [
        result_of(Layout(2, 1, 8), seconds),
        result_of(Layout(2, 2, 4), seconds / 2),
    ]
    add_ratios(results)
    assert results[0]["steps_per_second"]["median"] == pytest.approx(2)
    parts = {name: part["median"] for name, part in results[0]["milliseconds"].items()}
    assert parts == pytest.approx({"input": 200, "compute": 200, "allreduce": 100})
    assert results[1]["to_one_copy"] == pytest.approx(2)
    assert len(table(results).rows) == 2


def test_operations_of_an_image_are_those_of_the_literature():
    import baselines
    import keras
    from operations import training_gflop

    images = keras.Input((5, 6, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(images)  # 27 multiply-adds for each of 120
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)  # 9 for each of 120
    x = keras.layers.Dense(7)(keras.layers.Flatten()(x))  # 120 for each of 7
    found = training_gflop(keras.Model(images, x))
    assert found == pytest.approx(2e-9 * (2 * 27 * 120 + 3 * 9 * 120 + 3 * 120 * 7))
    # 4.09 G multiply-adds in the forward pass, as torchvision says of its ResNet-50.
    assert training_gflop(baselines.keras_network("resnet50", 224)) == pytest.approx(24.5, rel=0.01)


def test_rates_of_rivals_are_compared_round_by_round():
    from step_rivals import results_of

    gflop = {"ba_dist": 2.0, "pytorch": 2.0}
    ours, other = results_of({"ba_dist": [100, 10], "pytorch": [50, 5]}, 64, gflop)
    assert ours["ba_dist_to_it"]["median"] == 1
    assert other["ba_dist_to_it"]["median"] == 2 and other["ba_dist_to_it"]["deviation"] == 0


def test_what_a_rival_cannot_be_asked_is_one_message():
    done = run("step_rivals", "--rival", "wishes=python")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "pytorch or horovod-example" in done.stderr
    asked = ("--rival", "horovod-example=python", "--model", "resnet44")
    assert "--model resnet50" in run("step_rivals", *asked).stderr


def test_seconds_of_a_start_are_those_of_its_parts_and_between_them():
    from startup import seconds_of

    # Horovod starts inside of the time of the samples; one second lies between two parts.
    times = {"MPI": (0, 1), "the samples": (2, 5), "Horovod": (3, 4), "the first step": (5, 7.5)}
    found = seconds_of(times)
    assert found["in all"] == 7.5 and found["between them"] == 1
    assert found["the samples"] == 3 and found["Horovod"] == 0
    assert sum(found.values()) == pytest.approx(2 * 7.5)


# --- output ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["CPU", "GPU"])
def test_last_lines_are_those_that_sites_look_for(device):
    from harness import Measure, last_lines

    lines = last_lines(Measure(210.12, 2.4, 200), Measure(840.5, 9.6, 200), 4, device)
    first, last = lines.splitlines()
    assert SITE_CHECK.fullmatch(first).groups() == (device, "210.1", "2.4")
    assert last == f"Total img/sec on 4 {device}(s): 840.5 +-9.6"


def test_tables_for_terminal_and_markdown():
    from harness import Table

    made = Table("Title", ["name", "img/s", "+-"])
    made.add("a", 2137.6, None)
    made.add("longer", 0.01234, 3)
    assert made.text().splitlines() == [
        "Title",
        "name     img/s  +-",
        "a         2138   -",
        "longer  0.0123   3",
    ]
    assert made.markdown().splitlines()[2:5] == [
        "| name | img/s | +- |",
        "| --- | --: | --: |",
        "| a | 2138 | - |",
    ]
    with pytest.raises(ValueError, match="2 cells for the 3 columns"):
        made.add("b", 1)


def test_a_report_holds_what_is_needed_to_repeat_it(tmp_path):
    from harness import Report, Table

    report = Report("name", {"trials": 3}, {"ranks": 2}, [{"x": 1}], [Table("T", ["a"])], ["why"])
    report.write(tmp_path / "new" / "name.json")
    content = json.loads((tmp_path / "new" / "name.json").read_text())
    assert content["results"] == [{"x": 1}] and content["layout"] == {"ranks": 2}
    assert content["hardware"]["cores"] >= 1 and content["hardware"]["cpu"]
    assert content["versions"]["python"] and content["command"].startswith("python ")
    text = (tmp_path / "new" / "name.md").read_text()
    assert "## T" in text and "- why" in text


# --- bytes seen by strace -------------------------------------------------------------------------


def test_only_reads_of_the_data_count_each_for_its_mode():
    from storage_reads import count

    log = [
        "7 pread64(5</d/train-0>, 0x1, 100, 0) = 100",  # before the first mark
        '7 faccessat2(AT_FDCWD, "begin-replicate", F_OK, 0) = -1 ENOENT (No such file)',
        "7 pread64(5</d/train-0>, 0x1, 100, 0) = 100",
        "8 pread64(5</d/train-1>, 0x1, 50, 0 <unfinished ...>",
        '7 read(6</d/other>, "x", 9) = 9',
        "8 <... pread64 resumed>) = 40",
        "7 pread64(5</d/train-0>, 0x1, 100, 0) = -1 EIO (Input/output error)",
        '7 access("begin-cooperative", F_OK) = -1 ENOENT (No such file)',
        "7 read(5</d/train-0>, 0x1, 30) = 30",
    ]
    assert count(log, "/d/train") == {"": 100, "replicate": 140, "cooperative": 30}


# --- command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_names_every_flag_with_a_text(name):
    done = CliRunner().invoke(importlib.import_module(name).main, ["--help"])
    assert done.exit_code == 0 and not done.stderr
    assert "--output" in done.stdout and "[default:" in done.stdout
    # Every flag has a text beside it, or in the line below.
    assert not re.search(r"^  -\S+( [A-Z,.|\[\]a-z0-9]+)*\n(  -|\Z)", done.stdout, re.MULTILINE)


def test_no_benchmark_brings_tensorflow_before_it_is_needed():
    """It would take seconds of each --help, and come before it is told to be quiet."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
    code += "\n".join(f"import {name}; assert 'tensorflow' not in sys.modules, {name!r}"
                      for name in BENCHMARKS)  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_lists_of_numbers():
    from harness import Numbers

    assert Numbers().convert("1,2,4", None, None) == [1, 2, 4]
    for wrong in ("", "a", "1,,2", "0", "2,2"):
        with pytest.raises(click.BadParameter):
            Numbers().convert(wrong, None, None)


def test_mistakes_are_one_message():
    done = run("group_io", "--contenders", "cooperative,wishes")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "'wishes'" in done.stderr and "tf.data-service" in done.stderr
    done = run("order", "--ranks", "6", "--samples", "5", "--multiplicity", "2")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_instances_must_be_whole_copies():
    from training import layout_for

    from ba_dist.errors import LayoutError

    layout = layout_for(40, 10, 4)
    assert (layout.group_size, layout.copies_per_rank, layout.batch_size) == (2, 5, 16)
    with pytest.raises(LayoutError, match="40 or 45"):
        layout_for(42, 10, 4)


def test_multiplicities_that_do_not_fit_are_noted_and_the_others_share_a_ghost_batch():
    from scaling import plan

    notes = []
    wanted = {"multiplicities": [1, 3, 4, 10], "group_sizes": None, "batch_per_rank": 40}
    layouts = plan(SimpleNamespace(**wanted), 4, notes)
    assert [layout.multiplicity for layout in layouts] == [1, 4, 10]
    assert {layout.instances_per_rank for layout in layouts} == {40}
    assert {layout.ghost_batch for layout in layouts} == {8}
    assert len(notes) == 1 and notes[0].startswith("M = 3 on 4 ranks left out")


def test_the_same_copies_in_groups_of_several_sizes():
    from scaling import plan

    notes = []
    wanted = {"multiplicities": [4], "group_sizes": [1, 2, 3, 4], "batch_per_rank": 8}
    layouts = plan(SimpleNamespace(**wanted), 4, notes)
    shapes = [(it.group_size, it.copies_per_rank, it.batch_size) for it in layouts]
    assert shapes == [(1, 4, 8), (2, 2, 8), (4, 1, 8)]
    assert notes == [
        "M = 4 on 4 ranks left out: groups of 3 ranks do not fit M = 4 on 4 ranks; groups of 4 or a"
        " divisor of it do"
    ]


# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "block"])
def test_order_for_a_large_world(kind):
    from order import batches

    from ba_dist.rules.layout import Layout

    layout = Layout(5704, 8, 64 * 713)
    drawn = np.concatenate(batches(10**10, layout, 5703, kind, epoch=1))
    assert len(np.unique(drawn)) == 3 * 64
    assert drawn.min() >= 0 and drawn.max() < 10**10


def test_tf_data_makes_random_standardised_squares(tmp_path):
    """The rival of --ready does the work that it is compared by."""
    import photos
    import rivals

    photos.make_shards(tmp_path, 64)
    batches = iter(rivals.ready_batches(tmp_path, 32, 2))
    (first, labels), _, (again, same) = (next(batches) for _ in range(3))
    assert first.shape == (32, 224, 224, 3) and first.dtype == "float32"
    assert np.array_equal(labels, same) and not np.array_equal(first, again)
    lowest, highest = ((end - np.array(rivals.MEAN)) / rivals.STD for end in (0, 1))
    pixels = first.numpy()
    assert (pixels >= lowest - 1e-4).all() and (pixels <= highest + 1e-4).all()
    assert abs(pixels.mean()) < 0.7 and 0.5 < pixels.std() < 2


@pytest.mark.smoke
def test_what_an_instance_costs(tmp_path):
    output = tmp_path / "i.json"
    done = run("instances", "--trials", "2", "--output", str(output))
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())["results"]
    assert {"decode", "random-resized crop, flip", "jitter"} <= {r["work"] for r in results}
    assert all(r["milliseconds"]["median"] > 0 for r in results if r["image"] == "500x375")


def test_shards_that_are_written_anew_leave_no_index_of_the_old_ones(tmp_path):
    import photos

    from ba_dist.data.sources import shard_index

    photos.make_shards(tmp_path, 2, shards=1)
    index = tmp_path / f"train{shard_index.SUFFIX}"
    index.write_text("of two photographs")
    photos.make_shards(tmp_path, 2, shards=1)
    assert index.exists()
    photos.make_shards(tmp_path, 3, shards=1)
    assert not index.exists()


def test_an_option_that_several_benchmarks_have_is_written_once():
    found = {}
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "click.option":
                found.setdefault(ast.unparse(node), []).append(path.name)
    assert len(found) > 20 and not {o: names for o, names in found.items() if len(names) > 1}


def test_the_choice_of_an_exchange_is_held_against_the_better_way():
    from exchange_links import behind, layouts_of

    rates = {"cooperative-encoded": 80.0, "cooperative": 100.0, "auto": 90.0}
    assert behind(rates) == pytest.approx(10)
    assert behind(rates | {"auto": 110.0}) == pytest.approx(-10)
    assert layouts_of("2:1,4:2") == [(2, 1), (4, 2)]


@pytest.mark.parametrize("layouts", ["", "2", "2:3", "1:1", "2:1:1", "a:b"])
def test_layouts_of_nodes_that_are_none(layouts):
    from exchange_links import layouts_of

    from ba_dist.errors import UserError

    with pytest.raises(UserError, match="expected nodes:ranks"):
        layouts_of(layouts)
