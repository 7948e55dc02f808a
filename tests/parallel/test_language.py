"""A language model learns the same in every layout: masks, weights that are dropped, states.

What is compared between layouts is float64, so that only the order of sums may differ.
"""

import json
import random

import numpy as np
import pytest

from ba_dist.run import checkpoint
from tests.parallel.ranks import WIDE, program, warm

pytestmark = WIDE

STEPS = 30  # five epochs
WHOLE = {"steps": STEPS}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of all runs, beside the text that they are about."""
    out = tmp_path_factory.mktemp("language")
    numbers = random.Random(0)
    words = [f"w{int(20 * numbers.random() ** 2)}" for _ in range(500)]
    lines = [" ".join(words[i : i + 8]) for i in range(0, 500, 8)]
    (out / "train.txt").write_text("\n".join(lines[:45]) + "\n")
    (out / "valid.txt").write_text("\n".join(lines[45:]) + "\n")
    cut = {**WHOLE, "microbatch": 4, "ghost_batch_size": 4}
    train(out, 1, {"one rank": WHOLE, "cut": cut, "one copy": {"steps": 5, "multiplicity": 1}})
    train(out, 2, {"two ranks": WHOLE, "begun": {"steps": 15}})
    train(out, 4, {"four ranks": WHOLE, "begun": WHOLE})  # it goes on, in the middle of an epoch
    return out


def train(out, ranks, plans):
    changes = [[name, {"data_dir": str(out), **changed}] for name, changed in plans.items()]
    program("language.py", ranks, out, json.dumps(changes), run=warm)


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


@pytest.mark.parametrize("name", ["cut", "two ranks", "four ranks", "begun"])
def test_every_layout_learns_the_same(made, name):
    """On two ranks each holds a copy; on four a copy's samples are on two ranks, or in two
    microbatches, and all of them have its mask of weights.
    """
    found, expected = arrays(made / name), arrays(made / "one rank")
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, rtol=1e-10, atol=1e-13, err_msg=key)


def test_states_and_the_mean_of_the_weights_are_saved(made):
    found = arrays(made / "begun")
    states = [array for name, array in found.items() if name.endswith(("/hidden", "/cell"))]
    assert len(states) == 4
    for state in states:
        assert len(state) == 16 and len(np.unique(state, axis=0)) == 16
    assert found["average_updates"] > 0, "the mean has begun"
    means = [name for name in found if name.startswith("average/")]
    assert len(means) == 8 and not any(name.endswith("/cell") for name in means)
    assert any(np.abs(found[n] - found[n.replace("average", "model")]).max() > 1e-6 for n in means)


@pytest.mark.parametrize("name", ["one rank", "two ranks", "four ranks", "begun"])
def test_what_is_written_is_true(made, name):
    run = made / name
    summary, found = json.loads((run / "summary.json").read_text()), found_of(run)
    assert found["audit"] == [STEPS, []]
    step, metrics = found["evaluated"]
    assert step == STEPS and found["line"].startswith(f"step {STEPS}  val_perplexity ")
    assert metrics["val_perplexity"] == pytest.approx(np.exp(metrics["val_loss"]), rel=1e-12)
    for metric, value in metrics.items():
        assert summary[metric] == pytest.approx(value, rel=1e-12)
    assert summary["tokens_per_second"] > 0 and summary["samples"] == 8 * STEPS


def test_a_step_of_another_length_is_not_traced_anew(made):
    assert found_of(made / "one rank")["traced"] <= 2
    assert found_of(made / "cut")["traced"] <= 2


def test_losses_and_rates_are_those_of_any_layout(made):
    whole, others = steps_of(made / "one rank"), [made / "cut", made / "four ranks"]
    assert len({event["lr"] for event in whole}) > 3, "the rate goes with the length of a step"
    assert len(whole) == STEPS
    for run in others:
        for name in ("loss", "token_loss", "grad_norm", "lr"):
            mine, theirs = ([event[name] for event in e] for e in (steps_of(run), whole))
            np.testing.assert_allclose(mine, theirs, rtol=1e-11)
    assert all(event["loss"] > event["token_loss"] for event in whole), "with its penalties"


def test_augmented_copies_are_refused_where_no_input_is_augmented(made):
    for name in ("one rank", "two ranks"):
        refused = found_of(made / name)["refused"]
        assert refused.count("no input of it is augmented; leave --tta out") == 1


def test_one_copy_is_the_first_of_many(made):
    """The samples and the keys of masks are those of copy 0."""
    one, many = (
        json.loads((made / name / "trace" / "rank-00000.jsonl").read_text().split("\n")[1])
        for name in ("one copy", "one rank")
    )
    assert one["sample_ids"] == many["sample_ids"][:8]
    assert one["augment_keys"] == many["augment_keys"][:8]
