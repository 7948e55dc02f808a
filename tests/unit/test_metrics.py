"""What a run says of itself stays JSON, whatever numbers come; its readers cope with gaps."""

import json
import subprocess
import sys

import pytest

from ba_dist.reports.plots import plot_runs
from ba_dist.run import run_dir
from ba_dist.run.metrics import Metrics
from ba_dist.run.report import table
from ba_dist.tasks.classification import Classification

NAN, INF = float("nan"), float("inf")


def strictly(text):
    """Reads JSON that keeps to the standard."""

    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ({"a": NAN, "b": 1.5, "c": -INF}, {"a": None, "b": 1.5, "c": None}),
        ({"a": [1, INF, {"b": (NAN, 2)}]}, {"a": [1, None, {"b": [None, 2]}]}),
        ({"a": True, "b": None, "c": "NaN"}, {"a": True, "b": None, "c": "NaN"}),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_what_json_has_no_word_for_is_null(tmp_path, content, read, indent):
    assert strictly(run_dir.to_json(content, indent)) == read
    run_dir.write_json(tmp_path / "summary.json", content)
    assert strictly((tmp_path / "summary.json").read_text()) == read
    assert run_dir.read_json(tmp_path / "summary.json") == read


def test_a_diverged_run_can_be_read_and_drawn(tmp_path):
    metrics = Metrics(tmp_path)
    for step, loss in enumerate([2.0, 1.0, INF, NAN], 1):
        metrics.write("step", step, loss=loss, grad_norm=loss, lr=0.1, parts={"worst": [loss]})
    metrics.write("epoch", 4, epoch=0, val_top1=NAN)
    metrics.close()
    lines = [strictly(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("loss") for line in lines] == [2.0, 1.0, None, None, None]
    assert lines[2]["parts"] == {"worst": [None]}
    picture = plot_runs([tmp_path], tmp_path / "curves.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("value", [0.855, None])
def test_the_table_of_a_run_that_was_read_again(tmp_path, value):
    counts = dict.fromkeys(("group_size", "groups", "copies_per_rank", "world_size"), 1)
    sizes = {"steps": 4, "batch_size": 64, "multiplicity": 2, "samples": 256, "instances": 512}
    read = {"records_read": 256, "mode": "cooperative", "records_skipped": 0, "wait_share": 0.0}
    rates = {"epochs": 0.1, "images_per_second": 100.4, "seconds": 2.0, "val_top1": value}
    text = table(
        {"recipe": "quickstart", **counts, **sizes, **rates, "input": read},
        Classification,
        tmp_path,
    )
    shown = "not finite" if value is None else f"{value:.2%}"
    assert f"validation accuracy  {shown}\n" in text
    assert "images per second    100\n" in text


TO_THE_END = """
import errno, resource, sys
from pathlib import Path
from ba_dist.run.metrics import Metrics

metrics = Metrics(Path(sys.argv[1]))
metrics.write("step", 1, loss=1.0)
# The events are longer than the lines: theirs is the file that comes to its end first.
resource.setrlimit(resource.RLIMIT_FSIZE, (1200, resource.RLIM_INFINITY))
try:
    for step in range(2, 100):
        metrics.write("step", step, loss=1.0)
except OSError as error:
    print(errno.errorcode[error.errno], Path(error.filename).name)
metrics.close()
"""


def test_events_that_cannot_be_written_are_an_os_error(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TO_THE_END, str(tmp_path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "EFBIG tensorboard\n"), done.stderr[-2000:]
