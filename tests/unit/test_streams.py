"""The spans of a text: every token of every stream once an epoch, in any layout."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ba_dist.config import Config, override
from ba_dist.data.order import order_of, rate_factor
from ba_dist.data.sources.text import TextInfo
from ba_dist.rules.layout import Layout
from ba_dist.rules.order import GroupSampler
from ba_dist.rules.streams import LONGEST_SPAN, Streams, located, longest, streams

INFO = TextInfo("text", 10, "", 0, 70, 140)
SIZES = {
    "batch_size": st.integers(1, 40),
    "steps": st.integers(1, 60),
    "more": st.integers(0, 39),
    "span": st.integers(1, LONGEST_SPAN),
    "seed": st.integers(0, 2**63 - 1),
    "epoch": st.integers(0, 10**6),
}


@given(**SIZES)
def test_an_epoch_covers_every_stream_exactly(batch_size, steps, more, span, seed, epoch):
    samples = steps * batch_size + more % batch_size
    order = Streams(samples, seed, epoch, batch_size=batch_size, span=span)
    start, length = located(order(np.arange(steps * batch_size)).reshape(steps, batch_size))
    assert (length == length[:, :1]).all(), "the rows of a step are of one length"
    assert length.min() >= 1 and length.max() <= longest(span)
    stream = samples * span // batch_size
    np.testing.assert_array_equal(start[0], np.arange(batch_size) * stream)
    np.testing.assert_array_equal(start[1:], start[:-1] + length[:-1])
    np.testing.assert_array_equal(start[-1] + length[-1], start[0] + stream)
    # The last token to be told is still in the text of N·span + 1 tokens; few are left over.
    assert start[-1, -1] + length[-1, -1] <= samples * span
    assert samples * span - batch_size * stream < batch_size


@given(st.sampled_from([(1, 1), (2, 1), (4, 1), (2, 2), (4, 2), (4, 4)]), st.integers(0, 30))
def test_groups_take_other_streams_of_the_same_order(world, step):
    ranks, group_size = world
    layout = Layout(ranks, 4, 8, group_size)
    order = streams(8, 20)
    parts = [GroupSampler(8 * 7, 3, layout, g, order=order)(step) for g in range(layout.groups)]
    epoch, step_in_epoch = divmod(step, 7)
    assert {epoch} == {e for e, _ in parts}
    whole = Streams(8 * 7, 3, epoch, batch_size=8, span=20)(8 * step_in_epoch + np.arange(8))
    np.testing.assert_array_equal(np.concatenate([ids for _, ids in parts]), whole)


def test_lengths_are_about_the_span_and_some_are_half():
    lengths = np.diff(Streams(20 * 5000, 0, 0, batch_size=20, span=70).cuts)
    assert abs(lengths.mean() - 70) < 0.01
    halved = lengths < 50
    assert 0.03 < halved.mean() < 0.07
    usual = 70 / 0.975  # scaled, for the half ones are made up for
    assert abs(lengths[~halved].mean() - usual) < 0.5
    assert 3.5 < lengths[~halved].std() < 5.5


def test_epochs_and_seeds_are_cut_elsewhere():
    drawn = [
        Streams(20 * 100, seed, epoch, batch_size=20, span=70).cuts
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert (one[1:-1] == other[1:-1]).mean() < 0.2


def test_the_cuts_stay_what_they_are():
    """A run goes on with another version: another order would not be noticed."""
    cuts = Streams(60, 7, 3, batch_size=6, span=70).cuts
    assert cuts.tolist() == [0, 72, 149, 220, 296, 359, 429, 491, 567, 642, 700]


@pytest.mark.parametrize("samples, span, problem", [(3, 70, "fewer than 4"), (8, 513, "from 1 to")])
def test_what_cannot_be_cut_is_refused(samples, span, problem):
    with pytest.raises(ValueError, match=problem):
        Streams(samples, 0, 0, batch_size=4, span=span)


def test_the_rate_goes_with_the_length_of_a_step():
    config = override(Config("text"), {"batch_size": 20, "seed": 5})
    factor = rate_factor(config, INFO, 20 * 11)
    order = order_of(config, INFO)
    for step in (0, 3, 10, 11, 25):
        _, length = located(order(20 * 11, 5, step // 11)(20 * (step % 11)))
        assert factor(step) == length / 70
    assert sum(factor(step) for step in range(11)) == pytest.approx(11)
