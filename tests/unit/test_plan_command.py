"""`ba-dist plan`: its text, its picture, a finished run beside its prediction, what it refuses."""

import json
import time

import pytest

from ba_dist.config import override, to_dict
from ba_dist.errors import UserError
from ba_dist.planner import Way, plan, predict, read_machine, report
from ba_dist.recipes import recipe
from ba_dist.rules.layout import Layout

from .test_planner import PAPER, machine, work


def test_text_and_picture(tmp_path):
    made, where = [work(multiplicity=m) for m in (1, 4)], read_machine(PAPER)
    plans = [plan(w, where, n) for n in (16, 40) for w in made]
    said = report.text(made, where, plans)
    assert "predicted, not measured" in said and "40 nodes, M = 1: no: --batch-size 256" in said
    assert "assumed: numbers of the machine: node.memory" in said
    for name in ("plan.png", "plan.svg", "plan.png"):  # an earlier one of the same is replaced
        assert report.draw("title", plans, tmp_path / name).stat().st_size > 5000
    with pytest.raises(UserError, match="not a plot of the same"):
        report.draw("another title", plans, tmp_path / "plan.png")
    with pytest.raises(UserError, match=r"\.png, \.svg or \.pdf"):
        report.draw("title", plans, tmp_path / "plan.webp")
    with pytest.raises(UserError, match="cannot be written"):
        report.draw("title", plans, tmp_path / "no" / "plan.png")
    with pytest.raises(UserError, match="no layout"):
        report.draw("title", plans[2:3], tmp_path / "none.png")


# --- a finished run -------------------------------------------------------------------------------


# What the ranks of a run count of a step, by mode: records that they read, and what each gives the
# others, once (tests/parallel/test_calibrate.py holds it against runs).
COUNTED = {
    ("cooperative", "decoded"): (256, 256 * 420_000),
    ("cooperative", "encoded"): (256, 256 * 114_700),
    ("broadcast", "encoded"): (256, 256 * 114_700),
    ("replicate", "auto"): (4 * 256, 0),
}


def finished(folder, way="decoded", *, began=0, hosts="abcd", rate=250.0, **changes):
    """The files of a run of four ranks that took rate images a second."""
    config = override(recipe("resnet50-imagenet"), {"multiplicity": 4, **changes})
    facts = {"config": to_dict(config), "samples": 1_281_167, "hosts": list(hosts)}
    facts |= {"layout": {"microbatch": 64}, "exchange": {"way": way, "milliseconds": {}}}
    facts["layouts"] = [[0, {}], [began, {"microbatch": 64}]] if began else [[0, {}]]
    records, exchanged = COUNTED[config.placement.io, way]
    counted = 1000 - began
    summary = {
        "world_size": 4, "steps": 1000, "images_per_second": rate, "seconds": 4100.0,
        "input": {"records_read": counted * records, "bytes_read": counted * records * 114_700,
                  "bytes_exchanged": counted * exchanged},
    }  # fmt: skip
    events = [
        {"event": "step", "step": 10 * i, "images_per_second": rate + i, "input_wait": 0.01}
        for i in range(10)
    ]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(facts))
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events) + '{"ev')
    return folder


def compared(ba_dist, run, *words):
    """(name → [predicted, seen, ratio], all that was said)."""
    status, out, err = ba_dist("plan", "--run", run, "--machine", "cray-xc50", *words)
    assert (status, err) == (0, "")
    lines = [line.rsplit(None, 3) for line in out.splitlines()[3:] if "note:" not in line]
    return {name.strip(): values for name, *values in lines}, out


@pytest.mark.parametrize("began", [0, 900])
@pytest.mark.parametrize(("io", "way"), COUNTED)
def test_a_finished_run_beside_its_prediction(ba_dist, tmp_path, io, way, began):
    """What it exchanged is what was chosen at its start, and its counters are of its last job."""
    rows, _ = compared(ba_dist, finished(tmp_path / "run", way, began=began, io=io))
    asked, layout = work(multiplicity=4, io=io), Layout(4, 4, 256, microbatch=64)
    made = predict(asked, machine(), 4, Way(layout, io, way, asked.buckets))
    found = rows["steps per second"]
    assert float(found[0]) == pytest.approx(made.steps_per_second, rel=1e-3)
    assert float(found[1]) == pytest.approx(250 / 1024, rel=1e-3)
    for name in ("records read a step", "MB read a step"):
        assert rows[name][2] == "1.00", name
    assert rows["MB exchanged a step"][2] == ("-" if io == "replicate" else "1.00")
    # Single steps are predicted, and means of ten are seen.
    found = rows["deviation of the mean of 10 step(s)"]
    assert float(found[0]) == pytest.approx(
        made.steps_per_second * made.deviation / 10**0.5, rel=1e-3
    )


def test_a_run_of_a_network_that_the_machine_has_no_line_for(ba_dist, tmp_path):
    run = finished(tmp_path / "run", model="resnet44", image_size=32)
    assert "note: resnet44 takes " in compared(ba_dist, run)[1]


def test_a_run_with_other_ranks_a_node_than_the_machine_has(ba_dist, tmp_path):
    """Four ranks on two hosts: groups of two lie on one node, and the sum is over four ranks."""
    run = finished(tmp_path / "run", hosts="aabb")
    rows, said = compared(ba_dist, run)
    assert "note: the run had 2 ranks a node, the machine has 1" in said
    made, layout = work(multiplicity=4), Layout(4, 4, 256, microbatch=64)
    where = machine(node__ranks=2)
    expected = predict(made, where, 2, Way(layout, "cooperative", "decoded", made.buckets))
    assert float(rows["steps per second"][0]) == pytest.approx(expected.steps_per_second, rel=1e-3)


def test_shards_of_a_finished_run(ba_dist, tmp_path):
    """With a slow metadata server only files that are opened in each step cost a step."""
    text = PAPER.read_text()
    assert "opens = [20000," in text
    slow = tmp_path / "slow.toml"
    slow.write_text(text.replace("opens = [20000,", "opens = [20,"))
    run = finished(tmp_path / "run")
    rates = {}
    for shards in (0, 1024):
        words = ("plan", "--run", run, "--machine", slow, "--shards", shards)
        status, out, _ = ba_dist(*words)
        assert status == 0
        rates[shards] = next(line for line in out.splitlines() if "steps per second" in line)
    assert float(rates[0].split()[3]) < 0.1 < float(rates[1024].split()[3])


def test_what_is_no_finished_run(ba_dist, tmp_path):
    run = finished(tmp_path / "run")
    (run / "summary.json").unlink()
    status, out, err = ba_dist("plan", "--run", run, "--machine", "cray-xc50")
    assert status == 1 and out == "" and "is not finished" in err


# --- the command ----------------------------------------------------------------------------------


def test_the_command_answers_at_once(ba_dist):
    begun = time.perf_counter()
    status, out, err = ba_dist(
        "plan", "resnet50-imagenet", "--machine", "cray-xc50",
        "--nodes", "16,40,128,512", "--multiplicity", "1,4,10",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert time.perf_counter() - begun < 2
    assert "512 nodes, M = 10" in out and "cooperative, decoded, microbatch 64" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["resnet50-imagenet", "--nodes", "4"], "--machine"),
        (["resnet50-imagenet", "--machine", "cray-xc50"], "--nodes"),
        (["resnet50-imagenet", "--machine", "daint", "--nodes", "4"], "cray-xc50, dgx-a100"),
        (["resnet50-imagenet", "--machine", "cray-xc50", "--nodes", "0"], "0"),
        (["--machine", "cray-xc50", "--nodes", "4"], "RECIPE"),
        (["quickstart", "--machine", "cray-xc50", "--run", "x"], "leave out RECIPE"),
        (["--machine", "cray-xc50", "--run", "x", "--nodes", "4"], "leave out --nodes"),
        (["--machine", "cray-xc50", "--run", "x", "--output", "x.png"], "leave out --output"),
        (["--machine", "cray-xc50", "--run", "x", "--io", "broadcast"], "leave out --io"),
        (
            ["--machine", "cray-xc50", "--run", "x", "--multiplicity", "2", "--batch-size", "8"],
            "--multiplicity",
        ),
        (["--machine", "cray-xc50", "--run", "nowhere"], "nowhere"),
        (["transformer-wmt16", "--machine", "cray-xc50", "--nodes", "4"], "transformer"),
    ],
)
def test_what_the_command_refuses(ba_dist, words, says):
    status, out, err = ba_dist("plan", *words)
    assert (
        status == (1 if "nowhere" in words else 2)
        and out == ""
        and says in err
        and "Traceback" not in err
    )
