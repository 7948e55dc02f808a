"""What `ba-dist calibrate` makes of its measurements; measuring itself is in tests/parallel."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ba_dist.calibration.calibrate import cores_of_a_rank, render
from ba_dist.calibration.network import SUMMED, fitted
from ba_dist.calibration.steps import fit, split_noise
from ba_dist.calibration.storage import check, split, storage
from ba_dist.errors import ConfigError, UserError
from ba_dist.planner import collectives, read_machine
from ba_dist.planner.machine import Network
from ba_dist.planner.reading import reading, threads
from ba_dist.rules.layout import Layout

from .test_machines import PAPER
from .test_planner import machine, work


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


@pytest.mark.parametrize(
    ("allowed", "cores"),
    [
        ([range(4 * rank, 4 * rank + 4) for rank in range(4)], 4),  # each is bound to its own
        ([range(16)] * 4, 4),  # each may use all
        ([range(8), range(8), range(8, 16), range(8, 16)], 4),  # by socket
        ([range(1)] * 2, 1),
        ([range(6)], 6),
    ],
)
def test_the_cores_of_a_node_are_shared_once(allowed, cores):
    assert cores_of_a_rank([set(one) for one in allowed]) == cores


@pytest.mark.parametrize("bandwidth", [6.3e6, 1e9, 2e10])
@pytest.mark.parametrize("latency", [2e-6, 5e-4])
@pytest.mark.parametrize(
    ("nodes", "ranks"), [(1, 2), (1, 8), (2, 1), (4, 1), (2, 4), (16, 8), (3, 4)]
)
def test_a_plan_sums_as_fast_as_what_was_measured(nodes, ranks, latency, bandwidth):
    """There and back: the seconds of both sums on a network, and what is fitted to them alone."""
    inside, between = (5e-7, 1e11), (latency, bandwidth)
    true = Network(*inside, *between) if nodes > 1 else Network(*between, 5e-6, 1e10)
    taken = [collectives.allreduce("best", 4 * n, nodes, ranks, true) for n in SUMMED]
    single = Network(*inside, 1e-7, 1e12) if nodes > 1 else Network(1e-7, 1e12, 5e-6, 1e10)
    found = fitted((taken[0], taken[1]), nodes, ranks, single)
    for floats, seconds in zip(SUMMED, taken, strict=True):
        again = collectives.allreduce("best", 4 * floats, nodes, ranks, found)
        assert again == pytest.approx(seconds, rel=1e-6)
    for name in ("inside_latency", "inside_bandwidth", "latency", "bandwidth"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=1e-3), name


def test_sums_that_the_inside_explains_alone():
    """Nothing is left for what is between nodes: its bandwidth stays that of single messages."""
    single = Network(1e-3, 1e6, 5e-6, 1e10)
    found = fitted((1e-6, 1e-3), 2, 4, single)
    assert found.bandwidth == 1e10 and found.latency < 1e-9


@pytest.mark.parametrize("cores", [1, 12])
@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize(("seconds", "latency"), [(2.0, 0.002), (0.1, 1e-5), (0.1, 0.1)])
def test_a_plan_reads_as_fast_as_what_was_measured(cores, ranks, seconds, latency):
    """Also where files have waited for each other's bytes, so that latency would explain all."""
    found, client = split(seconds, latency, 32, ranks, threads(cores))
    assert 0 < found <= latency and client > 0
    where = machine(
        node__ranks=ranks, node__cores=cores, storage__latency=found, storage__client=client,
        storage__together=1e15, storage__opens=1e15,
    )  # fmt: skip
    asked, layout = work(multiplicity=1), Layout(ranks, 1, 32 * ranks)
    made = reading(asked, where, layout, "cooperative", "decoded")
    assert made.storage == pytest.approx(seconds)


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
    with pytest.raises(ValueError, match="Expected"):  # what is written, not what was to be
        render("x", "gpu", {**parts(), "step.net:build.fp32": {"fixed": (0, "x")}}, 1)


def test_storage_is_measured_and_left_as_it_was(comm, tmp_path):
    seen = storage(comm, tmp_path, 8, 4)
    assert 0 < seen.latency < 1 and seen.opens > 1
    assert seen.client > 1e5 and seen.together > 1e5
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--storage .*cannot be written"):
        storage(comm, tmp_path / "file", 8, 4)


def test_a_folder_of_memory_is_known_as_one(comm):
    folder = Path("/dev/shm")
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    if ["/dev/shm", "tmpfs"] not in mounts:  # as in some containers
        pytest.skip("no memory is mounted here")
    assert storage(comm, folder, 4, 4).cached
    assert not list(folder.glob("ba_dist-calibrate-*"))


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    for wrong in (tmp_path / "mistyped" / "data", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="--storage .* is no folder"):
            check(wrong)
    check(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "resnet51"], "resnet51"),
        (["--model", "resnet56"], "resnet44"),  # a network, but no plan knows it
        (["--model", "net:build"], "expected one of"),
        (["--batch-sizes", "48"], "48"),
        (["--precisions", "fp8"], "fp8"),
        (["--seconds", "0"], "0"),
    ],
)
def test_what_it_refuses(ba_dist, tmp_path, words, says):
    status, out, err = ba_dist("calibrate", "--output", tmp_path / "no.toml", *words)
    assert status == 2 and out == "" and says in err and "Traceback" not in err
    assert not (tmp_path / "no.toml").exists()
