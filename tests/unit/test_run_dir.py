"""A run's folder: held by one job, nothing lost, files cut back to a step."""

import json
import os
import signal
import subprocess
import sys

import pytest

from ba_dist.errors import UserError
from ba_dist.run import run_dir, trace

HOLD = """
import sys, pathlib
from ba_dist.run.run_dir import claim
lock = claim(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path / "run"."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_job_is_refused(holder, tmp_path):
    with pytest.raises(UserError, match="another job is using .*run; .* another --run-dir"):
        run_dir.claim(tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGKILL, None], ids=["killed", "ended"])
def test_the_next_job_may_have_it(holder, tmp_path, number):
    if number:
        os.kill(holder.pid, number)
    else:
        holder.stdin.close()
    holder.wait()
    run_dir.claim(tmp_path / "run").release()


def test_claim_makes_the_folder_and_can_be_given_back(tmp_path):
    folder = tmp_path / "a" / "b"
    run_dir.claim(folder).release()
    run_dir.claim(folder).release()
    assert folder.is_dir()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        run_dir.claim(tmp_path / "file" / "run")


# --- set_aside ----------------------------------------------------------------------------------


def files(folder):
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def put(folder, **texts):
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_everything_is_kept_however_often(tmp_path):
    lock = run_dir.claim(tmp_path)
    run_dir.set_aside(tmp_path)
    assert files(tmp_path) == {}
    for number in (1, 2, 3):
        texts = {"config": f"{number}", "checkpoints__step": "c", "the_previous_notes": "n"}
        put(tmp_path, **texts)
        run_dir.set_aside(tmp_path)
        moved = files(tmp_path / f"previous-{number}")
        assert moved == {name.replace("__", "/"): text for name, text in texts.items()}
    run_dir.set_aside(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        ".lock",
        *(f"previous-{n}" for n in (1, 2, 3)),
    }
    assert lock.held


def test_what_belongs_to_the_job_stays(tmp_path):
    put(tmp_path, config="old", job__submit="script", job__7="log")
    run_dir.set_aside(tmp_path)
    assert files(tmp_path) == {"previous-1/config": "old", "job/submit": "script", "job/7": "log"}


def test_a_deleted_one_makes_no_clash(tmp_path):
    put(tmp_path, **{"previous-1__a": "old", "previous-10__a": "older", "config": "new"})
    run_dir.set_aside(tmp_path)
    assert files(tmp_path) == {
        "previous-1/a": "old",
        "previous-10/a": "older",
        "previous-11/config": "new",
    }


# --- cut_back -----------------------------------------------------------------------------------


def write_lines(path, entries, torn=""):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + torn)


TORN = ["", '{"event": "step", "st', "\0\0\0\0", '{"event": "step", "step": 99}'[:-1], "{"]


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("steps", [0, 1, 3, 9])
def test_metrics_count_steps_that_are_done(tmp_path, torn, steps):
    path = tmp_path / "metrics.jsonl"
    kept = [{"event": "start"}, *({"event": "step", "step": s} for s in range(1, 6))]
    write_lines(path, kept, torn)
    run_dir.cut_back(path, steps)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == kept[: 1 + steps]
    assert path.read_text().endswith("\n") and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("steps", [0, 1, 3, 9])
def test_traces_count_from_zero(tmp_path, torn, steps):
    path = tmp_path / "rank-00000.jsonl"
    entries = [{"step": s, "sample_ids": [s]} for s in range(5)]
    write_lines(path, entries, torn)
    run_dir.cut_back(path, steps)
    assert [json.loads(line) for line in path.read_text().splitlines()] == entries[:steps]


@pytest.mark.parametrize("steps", [0, 2, 3, 9])
def test_digests_of_weights_are_of_steps_that_are_done(tmp_path, steps):
    path = tmp_path / "rank-00000.jsonl"
    entries = []
    for done in range(5):
        entries.append({"weights_after": done, "sha256": "x"})
        entries.append({"step": done, "sample_ids": [done]})
    write_lines(path, entries)
    run_dir.cut_back(path, steps)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == entries[: 2 * steps + 1]


def test_a_run_that_begins_anew_has_no_trace_of_the_one_before(tmp_path):
    (tmp_path / "trace").mkdir()
    write_lines(tmp_path / "trace" / "rank-00000.jsonl", [{"weights_after": 0, "sha256": "x"}])
    trace.cut_back(tmp_path, 0, 0, 1)
    assert list((tmp_path / "trace").iterdir()) == []


@pytest.mark.parametrize("steps", [12, 13])
def test_samples_of_a_bad_gradient_count_steps_from_one(tmp_path, steps):
    (tmp_path / "nonfinite").mkdir()
    path = tmp_path / "nonfinite" / "rank-00001.jsonl"
    write_lines(path, [{"step": 13, "finite": False, "sample_ids": [1]}])
    trace.cut_back(tmp_path, steps, 1, 2)
    assert len(path.read_text().splitlines()) == (steps == 13)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_each_rank_cuts_its_share_of_the_traces(tmp_path, ranks):
    """A job before had three ranks; all files are cut, each by one rank."""
    (tmp_path / "trace").mkdir()
    paths = [tmp_path / "trace" / f"rank-{rank:05d}.jsonl" for rank in range(3)]
    cut = []
    for rank in range(ranks):
        for path in paths:
            write_lines(path, [{"step": s, "sample_ids": [s]} for s in range(5)])
        trace.cut_back(tmp_path, 2, rank, ranks)
        cut += [path for path in paths if len(path.read_text().splitlines()) == 2]
    assert sorted(cut) == paths


def test_the_epoch_that_was_ended_at_a_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert run_dir.epoch_event(path, 4) is None
    epochs = [{"event": "epoch", "step": s, "val_top1": s / 10} for s in (2, 4)]
    write_lines(path, [{"event": "step", "step": 4}, *epochs, {"event": "straggler", "step": 4}])
    assert run_dir.epoch_event(path, 4) == epochs[1]
    assert run_dir.epoch_event(path, 3) is None


@pytest.mark.parametrize("torn", TORN)
def test_an_epoch_is_found_before_a_torn_line(tmp_path, torn):
    """A run that goes on is looked at while it writes."""
    path = tmp_path / "metrics.jsonl"
    write_lines(path, [{"event": "epoch", "step": 4, "val_top1": 0.4}], torn)
    found = run_dir.epoch_event(path, 4)
    assert found is not None and found["val_top1"] == 0.4
    assert run_dir.epoch_event(path, 99) is None


def test_lines_go_on_after_a_torn_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, [{"event": "step", "step": 1}], '{"event": "st')
    run_dir.cut_back(path, 1)
    with path.open("a") as file:
        file.write(json.dumps({"event": "step", "step": 2}) + "\n")
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_no_file_is_no_problem(tmp_path):
    run_dir.cut_back(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


# --- JSON files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a run directory: it has no config.json"),
        (b"", "is corrupt"),
        (b'{"a": ', "is corrupt"),
        (b"[1]", "holds no JSON object"),
        (b"\xff\xfe", "is corrupt"),
    ],
)
def test_what_is_no_run(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        run_dir.read_json(tmp_path / "config.json")


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a run directory"):
        run_dir.read_json(tmp_path / "file" / "config.json")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        run_dir.read_json(tmp_path / "config.json")


def test_a_run_that_came_to_nothing_leaves_no_folder(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("there/a/b", "there"):
        made = run_dir.missing(tmp_path / name)
        with run_dir.claim(tmp_path / name):
            run_dir.unclaim(tmp_path / name, made)
    assert [path.name for path in tmp_path.rglob("*")] == ["there", ".lock"]


def test_a_folder_that_something_was_written_to_stays(tmp_path):
    made = run_dir.missing(tmp_path / "run")
    assert made == [tmp_path / "run"]
    with run_dir.claim(tmp_path / "run"):
        (tmp_path / "run" / "config.json").write_text("{}")
        run_dir.unclaim(tmp_path / "run", made)
    assert (tmp_path / "run" / "config.json").exists()
    assert run_dir.set_aside(tmp_path / "run") == tmp_path / "run" / "previous-1"
    assert run_dir.set_aside(tmp_path / "run") is None
