"""What `ba-dist calibrate` makes of its measurements; measuring itself is in tests/parallel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ba_dist.calibration.calibrate import render
from ba_dist.calibration.steps import fit, split_noise
from ba_dist.calibration.storage import storage
from ba_dist.errors import ConfigError, UserError
from ba_dist.planner import read_machine

from .test_machines import PAPER


@given(st.floats(0, 1), st.floats(1e-6, 1), st.sets(st.integers(1, 256), min_size=2, max_size=8))
def test_a_line_is_found_again(fixed, instance, sizes):
    sizes = sorted(sizes)
    line = fit(sizes, [fixed + instance * n for n in sizes])
    for n in (*sizes, 500):
        assert line.fixed + line.instance * n == pytest.approx(fixed + instance * n, rel=1e-6)
    assert line.off < 1e-6


def test_a_line_has_no_negative_part_and_says_how_far_it_is_off():
    line = fit([1, 32], [0.01, 0.5])  # a larger batch is slower an instance
    assert line.fixed == 0 and 0.01 < line.instance < 0.016
    assert line.off > 0.1
    line = fit([1, 32], [0.5, 0.4])
    assert line.fixed >= 0 and line.instance >= 0
    assert fit([8], [0.4]).instance == 0.05


@pytest.mark.parametrize("ranks", [2, 16])
@pytest.mark.parametrize(("own", "common"), [(0.02, 0.1), (0.1, 0.0), (0.05, 0.05)])
def test_noise_of_a_rank_and_of_all(ranks, own, common):
    rng = np.random.default_rng(1)
    steps = 4000
    seconds = 0.3 * (
        1 + common * rng.standard_normal(steps) + own * rng.standard_normal((ranks, steps))
    )
    found = split_noise(seconds)
    assert found == (pytest.approx(own, rel=0.1), pytest.approx(common, rel=0.1, abs=0.02))


def test_one_rank_alone_cannot_tell_them_apart():
    seconds = 0.3 + 0.03 * np.random.default_rng(0).standard_normal((1, 4000))
    assert split_noise(seconds) == (pytest.approx(0.1, rel=0.1), 0.0)


def parts():
    made = read_machine(PAPER)
    found = {}
    for key, source in made.sources.items():
        table, _, name = key.rpartition(".")
        if table.count(".") == 2:
            _, network, precision = table.split(".")
            value = getattr(made.step_times[network][precision], name)
        else:
            value = getattr(getattr(made, table), name)
        found.setdefault(table, {})[name] = (value, source)
    return found


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "again.toml"
    path.write_text(render('a "quoted" name', "gpu", parts(), 4))
    found, paper = read_machine(path), read_machine(PAPER)
    assert found.name == 'a "quoted" name' and found.sources == dict(
        sorted(paper.sources.items(), key=lambda item: list(found.sources).index(item[0]))
    )
    for part in ("node", "step", "input", "network", "storage", "failures", "step_times"):
        assert getattr(found, part) == getattr(paper, part), part
    with pytest.raises(ConfigError, match="node.ranks"):
        render("x", "gpu", {**parts(), "node": {**parts()["node"], "ranks": (0, "x")}}, 1)


def test_storage_is_measured_and_left_as_it_was(comm, tmp_path):
    seen = storage(comm, tmp_path, 8)
    assert 0 < seen.latency < 1 and seen.opens > 1
    assert seen.client > 1e5 and seen.together > 1e5
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--storage .*cannot be written"):
        storage(comm, tmp_path / "file", 8)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "resnet51"], "resnet51"),
        (["--batch-sizes", "48"], "48"),
        (["--precisions", "fp8"], "fp8"),
        (["--seconds", "0"], "0"),
    ],
)
def test_what_it_refuses(ba_dist, tmp_path, words, says):
    status, out, err = ba_dist("calibrate", "--output", tmp_path / "no.toml", *words)
    assert status == 2 and out == "" and says in err and "Traceback" not in err
    assert not (tmp_path / "no.toml").exists()
