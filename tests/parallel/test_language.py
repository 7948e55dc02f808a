"""A language model learns the same in every layout: masks, weights that are dropped, states.

What is compared between layouts is float64, so that only the order of sums may differ.
"""

import json
import random
from functools import cache

import numpy as np
import pytest

from ba_dist.run import checkpoint
from tests.parallel.ranks import program

EPOCH, STEPS = 12, 30  # an epoch and a part of the third
PLANS = {
    1: [
        ["whole", {"steps": STEPS}],
        ["cut", {"steps": STEPS, "microbatch": 4, "ghost_batch_size": 4}],
        ["one", {"steps": 5, "multiplicity": 1}],
    ],
    2: [["whole", {"steps": STEPS}], ["begun", {"steps": 17}]],
    4: [["whole", {"steps": STEPS}]],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the runs on so many ranks, beside the text that they are about."""
    out = tmp_path_factory.mktemp("language")
    numbers = random.Random(0)
    words = [f"w{int(20 * numbers.random() ** 2)}" for _ in range(1000)]
    lines = [" ".join(words[i : i + 8]) for i in range(0, 1000, 8)]
    (out / "train.txt").write_text("\n".join(lines[:100]) + "\n")
    (out / "valid.txt").write_text("\n".join(lines[100:]) + "\n")

    @cache
    def run(ranks):
        folder = out / str(ranks)
        train(folder, ranks, PLANS[ranks])
        return folder

    return run


def train(folder, ranks, plans):
    data = {"data_dir": str(folder.parent)}
    program("language.py", ranks, folder, json.dumps([[n, {**data, **c}] for n, c in plans]))


def arrays(run):
    return checkpoint.newest_good(checkpoint.folder_of(run)).arrays


def assert_same_run(found, expected):
    found, expected = arrays(found), arrays(expected)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-10, atol=1e-13, err_msg=name)


def found_of(run):
    return json.loads((run / "found.json").read_text())


def steps_of(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "step"]


@pytest.mark.parametrize(("ranks", "name"), [(1, "cut"), (2, "whole"), (4, "whole")])
def test_every_layout_learns_the_same(made, ranks, name):
    """On two ranks each holds a copy; on four a copy's samples are on two ranks, or in two
    microbatches, and all of them have its mask of weights.
    """
    expected = made(1) / "whole"
    assert_same_run(made(ranks) / name, expected)
    states = [a for n, a in arrays(expected).items() if n.endswith(("/hidden", "/cell"))]
    assert len(states) == 4
    for state in states:
        assert len(state) == 16 and len(np.unique(state, axis=0)) == 16


def test_a_run_goes_on_in_the_middle_of_an_epoch_on_other_ranks(made):
    folder = made(2)
    train(folder, 4, [["begun", {"steps": STEPS}]])
    assert_same_run(folder / "begun", made(1) / "whole")


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_what_is_written_is_true(made, ranks):
    run = made(ranks) / "whole"
    summary, found = json.loads((run / "summary.json").read_text()), found_of(run)
    assert found["audit"] == [STEPS, []]
    assert found["evaluated"] == [STEPS, pytest.approx(found["evaluated"][1], rel=1e-12)]
    assert summary["val_perplexity"] == pytest.approx(np.exp(summary["val_loss"]), rel=1e-12)
    assert found["evaluated"][1]["val_loss"] == pytest.approx(summary["val_loss"], rel=1e-12)
    assert found["line"].startswith(f"step {STEPS}  val_perplexity ")
    assert summary["tokens_per_second"] > 0 and summary["samples"] == 8 * STEPS


def test_a_step_of_another_length_is_not_traced_anew(made):
    assert found_of(made(1) / "whole")["traced"] <= 2
    assert found_of(made(1) / "cut")["traced"] <= 2


def test_losses_and_rates_are_those_of_any_layout(made):
    whole, others = steps_of(made(1) / "whole"), [made(1) / "cut", made(4) / "whole"]
    assert len({event["lr"] for event in whole}) > 3, "the rate goes with the length of a step"
    assert len(whole) == STEPS
    for run in others:
        for name in ("loss", "token_loss", "grad_norm", "lr"):
            mine, theirs = ([event[name] for event in e] for e in (steps_of(run), whole))
            np.testing.assert_allclose(mine, theirs, rtol=1e-11)
    assert all(event["loss"] > event["token_loss"] for event in whole), "with its penalties"


def test_one_copy_is_copy_zero_of_many(made):
    """The first step, whose state is zero: the same sample, masks and weights dropped."""
    one, many = (
        json.loads((made(1) / name / "trace" / "rank-00000.jsonl").read_text().split("\n")[0])
        for name in ("one", "whole")
    )
    assert one["sample_ids"] == many["sample_ids"][:8]
    assert one["augment_keys"] == many["augment_keys"][:8]
