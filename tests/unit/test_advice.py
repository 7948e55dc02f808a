"""Every value that a refusal advises is accepted together with all others that were given."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ba_dist.config import Config, layout_of, override, plan_steps
from ba_dist.errors import ConfigError

VALUES = {
    "multiplicity": st.integers(1, 8),
    "batch_size": st.integers(1, 300),
    "ghost_batch_size": st.integers(1, 40),
    "group_size": st.none() | st.integers(1, 8),
    "microbatch": st.none() | st.integers(1, 64),
}
FLAG = r"--(batch-size|group-size|microbatch) "


def refusal(values, ranks, samples, known):
    """What is said where the values cannot work; None where they can."""
    if known:
        values = {**values, "train_samples": samples}
    config = override(Config("advice"), values)
    try:
        layout_of(config, ranks)
        plan_steps(config, samples, ranks)
    except ConfigError as error:
        return f"{error}"
    return None


def advised(text):
    """The changes that a refusal advises, each a dictionary."""
    advice = text.split("; ", 1)[-1]
    common = {"microbatch": None} if "without --microbatch" in advice else {}
    if first := re.match("with --group-size ([0-9]+), ", advice):
        common["group_size"] = int(first[1])
    if listed := re.search(FLAG + "values that work[^:]*: ([0-9, ]+)$", advice):
        name = listed[1].replace("-", "_")
        return [{**common, name: int(word)} for word in listed[2].split(",")]
    best = re.search("the largest that works is (?:--batch-size )?([0-9]+)$", advice)
    return [{**common, "batch_size": int(best[1])}] if best else []


@settings(max_examples=300)
@given(st.fixed_dictionaries(VALUES), st.integers(1, 8), st.integers(1, 300), st.booleans())
def test_what_is_advised_is_accepted(values, ranks, samples, known):
    text = refusal(values, ranks, samples, known)
    if text is None:
        return
    changes = advised(text)
    assert changes or "use fewer ranks" in text, text
    for change in changes:
        changed = {**values, **change}
        # Only the data tells how many samples there are: then there is a second refusal.
        if known or changed["batch_size"] <= samples:
            assert refusal(changed, ranks, samples, known) is None, (text, change)


@settings(max_examples=300)
@given(st.fixed_dictionaries(VALUES), st.integers(1, 8), st.integers(1, 300))
def test_before_the_data_is_known_something_of_what_is_advised_works_with_it(
    values, ranks, samples
):
    """Or only fewer ranks would do, or no --microbatch, which the second refusal tells."""
    text = refusal(values, ranks, samples, known=False)
    if text is None or "training samples)" not in text:
        return
    told = [refusal({**values, **change}, ranks, samples, False) for change in advised(text)]
    if None not in told:
        assert "use fewer ranks" in told[0] or "without --microbatch" in told[0], (text, told)


def test_of_150_images_and_a_batch_of_250():
    text = refusal({"batch_size": 250}, 1, 150, known=False)
    assert text.endswith(
        "--batch-size values that work (up to the number of training samples):"
        " 1, 2, 4, 8, 16, 32, 64, 128, 160, 192, 224, 256, 288, 320"
    )


@pytest.mark.parametrize("known", [True, False])
def test_150_images_and_a_batch_of_256(known):
    text = refusal({"batch_size": 256}, 1, 150, known)
    assert text == (
        "--batch-size 256 is more than the 150 training samples;"
        " the largest that works is --batch-size 128"
    )
