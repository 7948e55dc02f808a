"""The commands around training, and the examples of the documentation, as a person runs them."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest

from ba_dist import experiment
from ba_dist.data.catalog import open_source
from ba_dist.data.copies import first_copies
from ba_dist.run import copies_page, record
from tests.parallel.ranks import LAUNCHER, ROOT, mpirun, warm

PYTHON = [sys.executable, "-m", "ba_dist"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on two ranks."""
    folder = tmp_path_factory.mktemp("run")
    flags = ["--steps", 4, "--val-samples", 501, "--log-every", 1, "--trace"]
    logger = ["--logger", "tests.parallel.programs.recorder:Recorder"]
    done = mpirun(2, "train", "quickstart", "--run-dir", folder, *flags, *logger)
    return folder, done


@pytest.mark.mpi
def test_training_ends_with_a_table_and_is_otherwise_quiet(run):
    folder, done = run
    for text in ("layout", "validation accuracy", "images per second", "records read", str(folder)):
        assert text in done.stdout
    assert done.stderr == ""
    assert "tensorflow" not in done.stdout.lower()
    assert len(done.stdout.splitlines()) < 20


@pytest.mark.mpi
def test_a_run_leaves_what_the_readme_says(run):
    folder, _ = run
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["world_size"], summary["multiplicity"], summary["group_size"]) == (2, 2, 2)
    assert (summary["steps"], summary["samples"], summary["instances"]) == (4, 256, 512)
    assert summary["input"]["mode"] == "cooperative"
    assert summary["input"]["records_read"] == summary["input"]["records_decoded"] == 256
    assert summary["input"]["bytes_exchanged"] >= 256 * 28 * 28
    events = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    steps = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in steps] == [1, 2, 3, 4]
    for name in ("loss", "lr", "grad_norm", "images_per_second", "input_wait", "instances"):
        assert all(name in event for event in steps)
    assert any("val_top1" in event for event in events)
    for part in ("", "train", "validation"):
        assert list((folder / "tensorboard" / part).glob("events*"))
    facts = json.loads((folder / "config.json").read_text())
    assert facts["layout"]["group_size"] == 2 and len(facts["hosts"]) == 2
    assert facts["judged"]["by"] == "val_top1"
    seconds = [event["seconds"] for event in events]
    assert seconds == sorted(seconds) and seconds[-1] == summary["seconds"]
    page = (folder / "report.html").read_text()
    assert "rank 1, lane 1" in page and page.count("data:image/png") == 4


@pytest.mark.mpi
def test_a_run_keeps_pictures_of_its_first_copies(run):
    folder, _ = run
    config, facts = record.load_config(folder)
    source = open_source(config.data, "train")
    samples = first_copies(config, experiment.task_of(config, source.info), source)
    rows = copies_page.read(folder / "copies.png")
    assert len(rows) == len(samples) == 4
    for sample, (label, pixels) in zip(samples, rows, strict=True):
        assert label == f"sample {sample.sample}, {sample.label}"
        for number, copy in enumerate(sample.copies, 1):
            shown = pixels[:28, 30 * number : 30 * number + 28]
            np.testing.assert_array_equal(shown, np.broadcast_to(np.rint(255 * copy), shown.shape))
    assert {"python", "keras", "horovod"} <= set(facts["versions"])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # TensorBoard has the same, of rank 0 alone.
    (events,) = (folder / "tensorboard" / "train").glob("events*")
    tags = EventAccumulator(str(events)).Reload().Tags()["tensors"]
    told = {f"copies/sample {sample.sample}, {sample.label}" for sample in samples}
    assert {tag for tag in tags if tag.startswith("copies/")} == told


@pytest.mark.mpi
def test_a_logger_gets_on_rank_0_what_the_files_hold(run):
    folder, _ = run
    events = [json.loads(line) for line in (folder / "recorder.jsonl").open()]
    config, *logged, summary = events  # one each: of one rank only
    assert config["batch_size"] == 64 and config["ranks"] == 2
    assert logged == [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert summary == json.loads((folder / "summary.json").read_text())


@pytest.mark.mpi
def test_eval_counts_exactly_on_any_number_of_ranks(run):
    folder, _ = run
    summary = json.loads((folder / "summary.json").read_text())
    hits = summary["val_top1"] * 501
    assert abs(hits - round(hits)) < 1e-9
    done = warm(3, "eval", folder)
    assert f"val_top1 {summary['val_top1']:.2%}" in done.stdout


@pytest.mark.mpi
def test_export_audit_and_plot(run, tmp_path):
    folder, _ = run
    weights = tmp_path / "weights.npz"
    for words in (
        ["export", folder, "--output", weights],
        ["audit", folder],
        ["plot", folder, "--output", tmp_path / "curves.png"],
        ["plot", "curves", folder, "--x", "hours", "--output", tmp_path / "errors.svg"],
        ["compare", folder, "--json"],
        ["report", folder, "--output", tmp_path / "report.html"],
    ):
        subprocess.run([*PYTHON, *map(str, words)], check=True, capture_output=True)
    arrays = np.load(weights, allow_pickle=False)
    assert arrays["stem/kernel"].shape == (3, 3, 1, 16)
    assert "stem_norm/moving_variance" in arrays
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.mpi
def test_a_finished_run_is_not_trained_again(run):
    folder, done = run
    before = (folder / "metrics.jsonl").read_text()
    flags = ["--steps", 4, "--val-samples", 501, "--log-every", 1, "--trace"]
    again = warm(2, "train", "quickstart", "--run-dir", folder, *flags)
    assert (folder / "metrics.jsonl").read_text() == before
    assert done.stdout.splitlines()[-8:] == again.stdout.splitlines()[-8:]
    assert f"{folder} was finished before; nothing was trained now\n" in again.stdout
    flags[1] = 3
    shorter = warm(2, "train", "quickstart", "--run-dir", folder, *flags, check=False)
    assert (shorter.returncode, shorter.stdout) == (2, "")
    assert "is at step 4, beyond step 3, the last of --steps 3" in shorter.stderr
    assert (folder / "metrics.jsonl").read_text() == before


@pytest.mark.mpi
def test_a_refused_run_leaves_no_folder_and_an_older_one_is_told_where_it_went(tmp_path):
    folder = tmp_path / "new" / "run"
    words = ["train", "quickstart", "--dataset", "synthetic", "--steps", 1, "--run-dir", folder]
    refused = warm(2, *words, "--train-samples", 20, check=False)
    assert refused.returncode == 2 and not list(tmp_path.iterdir())
    flags = ["--train-samples", 64, "--val-samples", 10]
    done = warm(2, *words, *flags)
    assert "images per second    –\n" in done.stdout
    refused = warm(2, *words, "--no-resume", "--train-samples", 20, check=False)
    assert refused.returncode == 2 and not list(folder.glob("previous-*"))
    again = warm(2, *words, *flags, "--no-resume")
    assert f"the older run of {folder} is in {folder}/previous-1 now\n" in again.stdout
    assert (folder / "previous-1" / "summary.json").exists()


@pytest.mark.mpi
def test_other_settings_in_the_same_run_directory_are_refused(run):
    folder, _ = run
    done = warm(1, "train", "quickstart", "--run-dir", folder, "--seed", 3, check=False)
    assert done.returncode == 1
    assert "seed was 0, now 3" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.mpi
def test_doctor_reports_once_for_all_ranks():
    done = warm(2, "doctor", check=False)
    lines = done.stdout.splitlines()
    for subject in ("Python", "TensorFlow", "MPI", "Horovod", "GPUs", "data", "ranks", "cores"):
        assert sum(line.split()[1] == subject for line in lines if line.split()) == 1, subject
    assert "built with MPI" in done.stdout and "threads: multiple" in done.stdout


@pytest.mark.mpi
def test_a_typo_is_told_once_on_all_ranks():
    done = mpirun(2, "train", "quickstart", "--bach-size", 32, check=False)
    assert done.returncode == 2
    assert done.stderr.count("there is no flag --bach-size") == 1
    assert "--batch-size" in done.stderr and "Traceback" not in done.stderr
    # The ranks have said why they ended: nothing of Open MPI's own about it.
    assert "exited with non-zero status" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Try `ba-dist train --help`"), done.stderr


@pytest.mark.mpi
def test_a_terminal_shows_a_progress_bar(tmp_path):
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    words = ["train", "quickstart", "--steps", "12", "--val-samples", "100", "--log-every", "1"]
    command = [str(LAUNCHER), "-n", "1", "--", *words, "--run-dir", str(tmp_path / "run")]
    job = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            shown += os.read(leader, 4096)
        except OSError:  # the last process has closed the terminal
            break
    assert job.wait() == 0, shown.decode()
    # The bar is redrawn in place while it runs, not printed once at the end.
    assert b"images/s" in shown and shown.count(b"/12  ") > 2


@pytest.mark.mpi
@pytest.mark.smoke
def test_the_examples_of_the_documentation_run_and_the_augmented_one_is_better():
    accuracy = {}
    for name in ("plain", "augmented"):
        done = mpirun(2, "python", ROOT / "docs" / "examples" / f"{name}.py")
        accuracy[name] = float(done.stdout.split("other images")[1].strip(" %\n"))
    assert 90 < accuracy["plain"] < accuracy["augmented"]


def test_the_examples_differ_by_six_lines_at_most_which_the_page_shows():
    plain, augmented = (
        (ROOT / "docs" / "examples" / f"{name}.py").read_text().split('"""', 2)[2].splitlines()
        for name in ("plain", "augmented")
    )
    added = [line for line in augmented if line.strip() and line not in plain]
    assert 0 < len(added) <= 6
    page = (ROOT / "docs" / "own-script.md").read_text().splitlines()
    assert [line[1:] for line in page if line.startswith("+")] == added
    removed = [line for line in plain if line.strip() and line not in augmented]
    assert [line[1:] for line in page if line.startswith("-") and line[1] != " "] == removed
