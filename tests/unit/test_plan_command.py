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
    for name in ("plan.png", "plan.svg"):
        assert report.draw("title", plans, tmp_path / name).stat().st_size > 5000
    with pytest.raises(UserError, match=r"\.png or \.svg"):
        report.draw("title", plans, tmp_path / "plan.pdf")
    with pytest.raises(UserError, match="cannot be written"):
        report.draw("title", plans, tmp_path / "no" / "plan.png")
    with pytest.raises(UserError, match="no layout"):
        report.draw("title", plans[2:3], tmp_path / "none.png")


# --- a finished run -------------------------------------------------------------------------------


def finished(folder, world=4, rate=250.0, **changes):
    """The files of a run that took rate images a second."""
    config = override(recipe("resnet50-imagenet"), {"multiplicity": 4, **changes})
    facts = {"config": to_dict(config), "samples": 1_281_167, "hosts": ["a", "b", "c", "d"]}
    facts["layout"] = {"microbatch": 64}
    records = {"replicate": 4 * 256}.get(config.placement.io, 256)
    summary = {
        "world_size": world, "steps": 100, "images_per_second": rate, "seconds": 410.0,
        "input": {"records_read": 100 * records, "bytes_read": 100 * records * 114_700,
                  "bytes_exchanged": 100 * 256 * 420_000 * 3},
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


@pytest.mark.parametrize("io", ["cooperative", "replicate"])
def test_a_finished_run_beside_its_prediction(ba_dist, tmp_path, io):
    run = finished(tmp_path / "run", io=io)
    status, out, err = ba_dist("plan", "--run", run, "--machine", "cray-xc50")
    assert (status, err) == (0, "")
    rows = {line[:50].strip(): line[50:].split() for line in out.splitlines()[2:]}
    found = next(values for name, values in rows.items() if name.startswith("steps per second"))
    asked, layout = work(multiplicity=4, io=io), Layout(4, 4, 256, microbatch=64)
    made = predict(asked, machine(), 4, Way(layout, io, "x", asked.buckets))
    assert float(found[0]) == pytest.approx(made.steps_per_second, rel=1e-3)
    assert float(found[1]) == pytest.approx(250 / 1024, rel=1e-3)
    for name in ("records read a step", "MB read from storage a step"):
        assert rows[name][2] == "1.00", name
    if io == "cooperative":
        assert rows["MB exchanged a step"][2] == "1.00"


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
        (["quickstart", "--machine", "cray-xc50", "--run", "x"], "--run"),
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
