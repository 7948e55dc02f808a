"""Learning rates against closed forms; texts of regimes that read back as the same numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ba_dist.errors import ConfigError
from ba_dist.rules.schedules import (
    check_regime,
    format_regime,
    learning_rate,
    notice,
    parse_regime,
    parse_scale,
    scale_factor,
)

RESNET44 = ((0, 0.1), (81, 0.01), (122, 0.001), (164, 0.0001))

numbers = st.floats(0, 1e6, allow_nan=False)
regimes = st.builds(
    lambda epochs, rates: tuple(zip([0.0, *sorted(epochs)], rates, strict=False)),
    st.lists(st.floats(1e-3, 1e6), max_size=5, unique=True),
    st.lists(numbers, min_size=6, max_size=6),
)


@given(regimes)
def test_text_reads_back_bit_for_bit(regime):
    assert parse_regime(format_regime(regime)) == regime


def test_text_is_what_a_person_would_write():
    text = "0:0.1,81:0.01,122:0.001,164:0.0001"
    assert parse_regime(text) == RESNET44 and format_regime(RESNET44) == text
    assert parse_regime(" 0:1e-1, 2.5:0 ") == ((0.0, 0.1), (2.5, 0.0))


def test_one_number_is_a_rate_that_stays():
    assert parse_regime("0.1") == parse_regime(" 1e-1 ") == ((0.0, 0.1),)
    assert {learning_rate(parse_regime("0.1"), 10)(step) for step in range(100)} == {0.1}
    with pytest.raises(ConfigError, match="finite and at least 0"):
        parse_regime("-0.1")


@pytest.mark.parametrize(
    "text", ["", "fast", "1,2", "0:0.1,", "0:0.1:step:3", "0:fast", "0=0.1", ","]
)
def test_unreadable_text(text):
    with pytest.raises(ConfigError, match=r"--lr .* cannot be read; write a rate .* or EPOCH:RATE"):
        parse_regime(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1:0.1", "start at 0 and grow"),
        ("0:0.1,5:0.01,5:0.001", "start at 0 and grow"),
        ("0:0.1,9:0.01,5:0.001", "start at 0 and grow"),
        ("0:-0.1", "finite and at least 0"),
        ("0:nan", "finite and at least 0"),
        ("0:0.1,inf:0.2", "finite and at least 0"),
        ("0:0.1,nan:0.2", "finite and at least 0"),
    ],
)
def test_regimes_that_cannot_work(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_regime(text)
    assert f"--lr {text}" in str(caught.value)


@pytest.mark.parametrize("value", [0.1, "0:0.1", None, (0.1,), ((0, 0.1, 2),), ((0, "0.1"),), [0]])
def test_what_is_no_regime(value):
    with pytest.raises(ConfigError, match="is not a regime; expected"):
        check_regime(value)


def test_no_points():
    with pytest.raises(ConfigError, match="start at 0"):
        check_regime(())


def test_step_regime_of_the_authors():
    """Each rate holds from the first step of its epoch to the last before the next."""
    rate = learning_rate(RESNET44, 781)
    for epoch, expected in [(0, 0.1), (80, 0.1), (81, 0.01), (121, 0.01), (122, 0.001)]:
        assert rate(epoch * 781) == rate(epoch * 781 + 780) == expected
    assert rate(164 * 781 - 1) == 0.001
    assert rate(164 * 781) == rate(10**9) == 0.0001


CLOSED = ["step", "linear", "cosine", "polynomial"]


@given(regimes, st.sampled_from(CLOSED), st.integers(1, 2000), st.data())
def test_closed_forms(regime, shape, steps, data):
    power = data.draw(st.floats(0.1, 4))
    step = data.draw(st.integers(0, math.ceil(regime[-1][0] * steps) + 10))
    epochs, rates = (np.array(column, np.float64) for column in zip(*regime, strict=True))
    e = step / steps
    here = np.searchsorted(epochs, e, side="right") - 1
    if shape == "linear":
        expected = np.interp(e, epochs, rates)
    elif shape == "step" or here == len(epochs) - 1:
        expected = rates[here]
    elif shape == "polynomial":
        left = (epochs[here + 1] - e) / (epochs[here + 1] - epochs[here])
        share = left**power
        expected = share * rates[here] + (1 - share) * rates[here + 1]
    else:
        t = (e - epochs[here]) / (epochs[here + 1] - epochs[here])
        low, high = rates[here + 1], rates[here]
        expected = low + (high - low) * math.cos(math.pi * t / 2) ** 2
    found = learning_rate(regime, steps, shape, power=power)(step)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * rates.max())


def test_cosine_from_end_to_end():
    rate = learning_rate(((0, 0.025), (600, 0)), 10, "cosine")
    assert rate(0) == 0.025 and rate(3000) == pytest.approx(0.0125) and rate(6000) == 0
    assert rate(1500) == pytest.approx(0.025 * (1 + math.sqrt(0.5)) / 2)


def test_the_polynomial_of_you_et_al():
    """LARS: five epochs of warm-up, then a parabola that ends at 0, at epoch 90."""
    rate = learning_rate(parse_regime("0:0:linear,5:29:polynomial,90:0"), 40)
    assert rate(100) == pytest.approx(14.5) and rate(200) == 29
    for step in range(200, 3601, 100):
        assert rate(step) == pytest.approx(29 * (1 - (step - 200) / 3400) ** 2, abs=1e-12)
    assert rate(10**6) == 0


@given(st.integers(1, 4096), st.integers(1, 10**5), st.integers(1, 10**6), st.integers(1, 10**5))
def test_the_rate_of_the_transformer(d, warm_up, step, steps_per_epoch):
    """d^-0.5 · min(s^-0.5, s·W^-1.5) for s = 1, 2, …, whatever an epoch is."""
    peak = ((0.0, (d * warm_up) ** -0.5),)
    rate = learning_rate(peak, steps_per_epoch, "inverse-sqrt", warmup_steps=warm_up)
    published = d**-0.5 * min(step**-0.5, step * warm_up**-1.5)
    assert rate(step) == pytest.approx(published, rel=1e-12)


def test_an_inverse_root_from_a_later_point():
    """Level, then falling as T5's does, whatever the warm-up was; a later point ends it."""
    regime = parse_regime("0:0.01,4:0.01:inverse-sqrt,16:0.001")
    rate = learning_rate(regime, 100, warmup_steps=50)
    assert rate(25) == 0.005 and rate(50) == rate(400) == 0.01
    assert rate(900) == pytest.approx(0.01 * math.sqrt(4 / 9)) and rate(1600) == 0.001
    longer = learning_rate(regime, 100, warmup_steps=600)
    assert longer(600) == 0.01 and longer(1200) == pytest.approx(0.01 * math.sqrt(0.5))


@pytest.mark.parametrize("text", ["0.1", "0:0.1:inverse-sqrt,5:1"])
def test_an_inverse_root_without_a_beginning(text):
    with pytest.raises(ConfigError, match="there is none; give --warmup-steps or --warmup-epochs"):
        learning_rate(parse_regime(text), 10, "inverse-sqrt")


@pytest.mark.parametrize("shape", CLOSED)
def test_regimes_with_fractions_of_epochs(shape):
    rate = learning_rate(((0, 0.0), (0.3, 1.0), (0.7, 2.0)), 10, shape)
    assert (rate(3), rate(7)) == (1.0, 2.0)


@pytest.mark.parametrize("begin", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("warmup", [0.5, 1, 2.5, 5])
@pytest.mark.parametrize("steps", [1, 3, 100])
def test_warm_up_is_a_straight_line_to_the_full_rate(warmup, steps, begin):
    regime = ((0, 0.4), (50, 0.04))
    length = warmup * steps
    warm = learning_rate(regime, steps, scale=2, warmup_steps=length, warmup_from=begin)
    plain = learning_rate(regime, steps, scale=2)
    for step in range(math.ceil(length) + 5):
        expected = np.interp(step, [0, length], [begin, 0.8])
        assert warm(step) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert warm(0) == begin
    assert all(warm(step) == plain(step) for step in range(math.ceil(length), 60 * steps))


def test_the_large_batch_of_goyal_et_al():
    """B = 8192: from 0.1 to 32 times 0.1 in five epochs, a tenth at epochs 30, 60 and 80."""
    regime = ((0, 0.1), (30, 0.01), (60, 0.001), (80, 0.0001))
    rate = learning_rate(regime, 156, scale=32, warmup_steps=5 * 156, warmup_from=0.1)
    assert rate(0) == 0.1
    assert rate(390) == pytest.approx((0.1 + 3.2) / 2)
    assert [rate(156 * epoch) for epoch in (5, 29, 30, 60, 80)] == pytest.approx(
        [3.2, 3.2, 0.32, 0.032, 0.0032]
    )


def test_warm_up_follows_the_regime_below_it():
    warm = learning_rate(((0, 0.0), (10, 1.0)), 10, "linear", warmup_steps=50)
    assert warm(24) == pytest.approx(0.24 * 24 / 50)


def test_a_shape_for_each_piece():
    """Linear to epoch 5, then steps, then a cosine to the end: the same as each piece alone."""
    regime = parse_regime("0:0.1:linear,5:0.4,30:0.04:cosine,40:0")
    assert regime == ((0, 0.1, "linear"), (5, 0.4), (30, 0.04, "cosine"), (40, 0))
    assert format_regime(regime) == "0:0.1:linear,5:0.4,30:0.04:cosine,40:0"
    rate = learning_rate(regime, 10)
    assert rate(25) == pytest.approx(0.25) and rate(50) == rate(299) == 0.4
    assert rate(300) == 0.04 and rate(350) == pytest.approx(0.02) and rate(400) == 0
    other = learning_rate(regime, 10, "linear")
    assert other(25) == rate(25) and other(175) == pytest.approx(0.22) and other(350) == rate(350)


@given(st.floats(1e-3, 1e3), st.floats(-2, 2))
def test_scales_are_powers_of_the_batch(ratio, power):
    assert scale_factor("none", ratio) == 1 and scale_factor("linear", ratio) == ratio
    assert scale_factor("sqrt", ratio) == pytest.approx(math.sqrt(ratio))
    expected = math.exp(round(power, 3) * math.log(ratio))
    assert scale_factor(f"batch^{power:.3f}", ratio) == pytest.approx(expected, rel=1e-9)
    assert scale_factor(parse_scale("2.5"), ratio) == 2.5
    assert parse_scale(" linear ") == "linear" and parse_scale("1") == 1.0


@pytest.mark.parametrize(
    "text", ["", "fast", "batch", "batch^", "batch^x", "-1", "nan", "M^2", "inf"]
)
def test_what_is_no_scale(text):
    with pytest.raises(
        ConfigError, match="--lr-scale is .*; expected a factor .* linear, or batch"
    ):
        parse_scale(text)


@pytest.mark.parametrize("text", ["0:0.1:wavy", "0:0.1:"])
def test_what_is_no_shape(text):
    with pytest.raises(
        ConfigError, match="is no shape; choose from step, linear, cosine, polynomial, inv"
    ):
        parse_regime(text)


@pytest.mark.parametrize(
    ("regime", "epochs", "found"),
    [
        (((0, 0.1),), 5, None),
        (((0, 0.1), (5, 0.0)), 5, None),
        (((0, 0.1), (5, 0.0)), 10, "0 after 5 epochs"),
        (((0, 0.1), (81, 0.01), (122, 0.001), (164, 0.0001)), 100, "points at 122, 164"),
    ],
)
def test_a_regime_that_does_not_fit_the_run_is_told(regime, epochs, found):
    text = notice(regime, epochs)
    assert text is None if found is None else found in text
