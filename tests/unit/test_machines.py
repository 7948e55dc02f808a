"""Machine files: every number has a source, and a bad file is one message."""

import dataclasses

import pytest

from ba_dist.errors import ConfigError
from ba_dist.planner import read_machine

from .test_benchmarks import ROOT

MACHINES = sorted((ROOT / "slurm" / "machines").glob("*.toml"))
PAPER = ROOT / "slurm" / "machines" / "cray-xc50.toml"


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
def test_every_number_of_a_machine_has_a_source(path):
    made = read_machine(path)
    numbers = sum(len(dataclasses.fields(getattr(made, part))) for part in
                  ("node", "step", "input", "network", "storage", "failures"))  # fmt: skip
    lines = sum(2 * len(lines) for lines in made.step_times.values())
    assert len(made.sources) == numbers + lines
    assert all(len(source) > 3 for source in made.sources.values())
    assert set(made.assumed) <= set(made.sources)


def test_a_network_may_take_no_time_that_all_batch_sizes_share(tmp_path):
    """As `calibrate` finds where a line through all of its times would begin below 0."""
    path = tmp_path / "machine.toml"
    text = PAPER.read_text()
    assert "fixed = [0.02997" in text
    path.write_text(text.replace("fixed = [0.02997", "fixed = [0"))
    assert read_machine(path).step_times["resnet50"]["fp32"].fixed == 0
    path.write_text(text.replace("instance = [0.003845", "instance = [0"))
    with pytest.raises(ConfigError, match="step.resnet50.fp32.instance is .*more than 0"):
        read_machine(path)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("ranks = [1,", "rank = [1,", ("node.rank ", "unknown", "ranks, cores")),
        ('cores = [12, "paper, section 4.5"]', "", ("node.cores is missing", "whole number")),
        ("bandwidth = [8e9,", "bandwidth = [-8e9,", ("network.bandwidth", "-8", "more than 0")),
        ("bandwidth = [8e9,", "bandwidth = [0,", ("network.bandwidth", "0", "more than 0")),
        ("bandwidth = [8e9,", "bandwidth = [nan,", ("network.bandwidth", "nan")),
        ("bandwidth = [8e9,", "bandwidth = [inf,", ("network.bandwidth", "inf")),
        ("bandwidth = [8e9,", "bandwidth = [true,", ("network.bandwidth", "True")),
        ('"paper, figure 5: 0', '"", "paper, figure 5: 0', ("step.drift", "SOURCE")),
        ("ranks = [1,", "ranks = [1.5,", ("node.ranks", "1.5", "whole number")),
        ("ranks = [1,", f"ranks = [1{400 * '0'},", ("node.ranks", "1000", "whole number")),
        ("bandwidth = [8e9,", f"bandwidth = [8{400 * '0'},", ("network.bandwidth", "8000")),
        ("noise = [0.2,", "noise = [20,", ("input.noise", "20", "from 0 to 1")),
        ('device = "gpu"', 'device = "tpu"', ("device", "'tpu'", "gpu, cpu")),
        ('allreduce = "best"', 'allreduce = "star"', ("allreduce", "star", "hierarchical")),
        ("[step.resnet50.fp32]", "[step.resnet50.fp8]", ("step.resnet50.fp8", "fp32, bf16")),
        ("[storage]", "[store]", ("store is unknown", "storage")),
        ("latency = [0.002,", "latency = 0.002 #", ("storage.latency", "0.002", "[NUMBER")),
        ("[node]", "[node", ("is not TOML",)),
        ('name = "Cray', 'name = 3 # "Cray', ("name is 3",)),
    ],
)
def test_a_bad_file_is_one_message(tmp_path, old, new, parts):
    text = PAPER.read_text()
    assert old in text
    path = tmp_path / "bad.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_machine(path)
    message = str(caught.value)
    assert message.startswith(f"--machine {path}") and "\n" not in message
    assert not [part for part in parts if part not in message], message


def test_a_file_without_a_network_or_that_is_none(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(PAPER.read_text().split("[step.resnet50")[0] + "[input]\n")
    with pytest.raises(ConfigError, match="input|missing"):
        read_machine(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_machine(tmp_path / "none.toml")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not text"):
        read_machine(path)
