"""A second task goes all the way: text, tokens, dropout, a state for each instance.

What is compared between layouts is float64, so that only the order of sums may differ.
"""

import json
from functools import cache

import numpy as np
import pytest

from ba_dist.run import checkpoint
from tests.parallel.ranks import program

STEPS = 6
PLANS = {
    1: [["whole", {"steps": STEPS}], ["cut", {"steps": STEPS, "microbatch": 8}]],
    2: [["whole", {"steps": STEPS}], ["begun", {"steps": 3}]],
    4: [["whole", {"steps": STEPS}], ["alone", {"steps": STEPS, "group_size": 2}]],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the runs on so many ranks."""
    out = tmp_path_factory.mktemp("characters")

    @cache
    def run(ranks):
        folder = out / str(ranks)
        program("next_character.py", ranks, folder, json.dumps(PLANS[ranks]))
        return folder

    return run


def arrays(run):
    return checkpoint.newest_good(checkpoint.folder_of(run)).arrays


def assert_same_run(found, expected):
    found, expected = arrays(found), arrays(expected)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-10, atol=1e-13, err_msg=name)


@pytest.mark.parametrize(("ranks", "name"), [(1, "cut"), (2, "whole"), (4, "whole"), (4, "alone")])
def test_every_layout_learns_the_same(made, ranks, name):
    """Masks, the sums over tokens, and the state of each instance, which has B·M rows."""
    expected = made(1) / "whole"
    assert_same_run(made(ranks) / name, expected)
    (state,) = (a for name, a in arrays(expected).items() if name.endswith("/state"))
    assert state.shape == (4 * 16, 12) and len(np.unique(state, axis=0)) == 64


def test_a_run_goes_on_on_other_ranks(made):
    """The state of the instances is dealt out anew."""
    folder = made(2)
    program("next_character.py", 4, folder, json.dumps([["begun", {"steps": STEPS}]]))
    assert_same_run(folder / "begun", made(1) / "whole")


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_what_is_written_speaks_of_tokens(made, ranks):
    run = made(ranks) / "whole"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["tokens_per_second"] > 0 and "images_per_second" not in summary
    assert 0 <= summary["val_token_accuracy"] <= 1
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert len(steps) == STEPS and all(0 <= e["token_accuracy"] <= 1 for e in steps)
    found = json.loads((run / "found.json").read_text())
    assert found["audit"] == [STEPS, []]
    assert found["evaluated"][0] == STEPS
    assert found["evaluated"][1]["val_loss"] == pytest.approx(summary["val_loss"], rel=1e-12)


def test_losses_are_means_over_tokens_not_over_rows_or_ranks(made):
    """Ranks and microbatches hold different numbers of tokens: a mean of means would differ."""
    losses = []
    for ranks, name in ((1, "whole"), (1, "cut"), (4, "whole")):
        lines = (made(ranks) / name / "metrics.jsonl").read_text().splitlines()
        events = map(json.loads, lines)
        losses.append([event["loss"] for event in events if event["event"] == "step"])
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-12)
