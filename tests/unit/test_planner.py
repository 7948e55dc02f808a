"""What `ba-dist plan` predicts, against the paper, closed forms and the limits of its rules."""

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ba_dist.config import override
from ba_dist.errors import ConfigError
from ba_dist.planner import (
    Way,
    collectives,
    failures,
    noise,
    plan,
    predict,
    read_machine,
    workload_of,
)
from ba_dist.planner.machine import StepTime
from ba_dist.planner.networks import NETWORKS
from ba_dist.planner.prediction import step_time
from ba_dist.planner.reading import reading
from ba_dist.recipes import RECIPES, recipe
from ba_dist.recipes.about import MULTIPLY_ADDS
from ba_dist.rules.layout import Layout

from .test_benchmarks import ROOT

PAPER = ROOT / "slurm" / "machines" / "cray-xc50.toml"
TABLE_5 = {1: 29.9, 2: 53.9, 4: 87.8, 8: 126.9, 16: 172.5, 32: 210.1, 64: 234.4, 128: 247.9}


def machine(**parts):
    """The paper's machine with some numbers changed: part__number=value."""
    made = read_machine(PAPER)
    for name, value in parts.items():
        part, key = name.split("__")
        changed = dataclasses.replace(getattr(made, part), **{key: value})
        made = dataclasses.replace(made, **{part: changed})
    return made


def work(name="resnet50-imagenet-40epochs", shards=0, **changes):
    return workload_of(override(recipe(name), changes), shards=shards)


def test_gradients_go_in_buckets_as_the_run_has_them():
    assert work().buckets == 25  # 102 MB of ResNet-50, 4 MiB each
    assert work(bucket_mb=0.0).buckets == work(bucket_mb=200.0).buckets == 1
    found = {
        mb: plan(work(bucket_mb=mb), read_machine(PAPER), 64).best.seconds for mb in (0.0, 4.0)
    }
    assert found[4.0] < found[0.0]


# --- the paper ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "rate"), TABLE_5.items())
def test_table_5_by_two_constants(size, rate):
    line = read_machine(PAPER).step_times["resnet50"]["fp32"]
    assert size / line.seconds(size) == pytest.approx(rate, rel=0.05)


@pytest.mark.parametrize(
    ("copies", "nodes", "rate", "within"),
    [(1, 4, 1.43, 0.005), (4, 16, 1.47, 0.13), (10, 40, 1.46, 0.13)],
)
def test_figure_5(copies, nodes, rate, within):
    """M = 1 calibrates; the others are predicted. The interval is as wide as the paper's."""
    # The paper sums all gradients in one message.
    one = work(multiplicity=copies, bucket_mb=0.0)
    best = plan(one, read_machine(PAPER), nodes).best
    assert best.steps_per_second == pytest.approx(rate, abs=within)
    assert 0.11 < best.steps_per_second * best.deviation < 0.15
    layout = best.way.layout
    assert (layout.group_size, layout.copies_per_rank) == (copies, 1)
    assert layout.instances_per_rank == layout.microbatch == 64


def test_a_group_reads_once_and_a_baseline_of_as_many_instances_as_often_as_it_has():
    machine_, found = read_machine(PAPER), {}
    for copies, nodes, io in ((1, 4, "cooperative"), (4, 16, "cooperative"), (4, 16, "replicate")):
        layout = Layout(nodes, copies, 256)
        made = predict(work(multiplicity=copies), machine_, nodes, Way(layout, io, "encoded"))
        found[copies, io] = made.input.bytes_read
    assert found[4, "cooperative"] == found[1, "cooperative"] == 256 * 114_700
    assert found[4, "replicate"] == 4 * found[4, "cooperative"]


def test_facts_are_those_of_the_networks():
    """A network that is built has as many numbers, and keeps as many for its backward pass."""
    from ba_dist import models
    from ba_dist.models.layers.ghost_batch_norm import GhostBatchNormalization
    from ba_dist.reports.outlook import _kept_by_an_instance

    norm = partial(GhostBatchNormalization, ghost_batch_size=32, momentum=0.9)
    for name, channels, classes in (("resnet8", 1, 10), ("resnet44", 3, 10), ("resnet50", 3, 1000)):
        facts = NETWORKS[name]
        shape = (facts.side, facts.side, channels)
        model = models.build(name, norm, image_shape=shape, classes=classes)
        trained = sum(math.prod(v.shape) for v in model.trainable_variables)
        every = sum(math.prod(v.shape) for v in model.variables)
        assert (trained, every - trained) == (facts.parameters, facts.statistics)
        assert _kept_by_an_instance(model) == 4 * facts.kept


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 10, 1000, 100_000])
def test_the_slowest_of_many(ranks):
    """Against the mean of drawn maxima; two standard normals have 1/√π."""
    mean, spread = noise.slowest(0.1, ranks)
    rng, sigma = np.random.default_rng(0), math.sqrt(math.log1p(0.01))
    rows = max(50, 200_000 // ranks)
    drawn = [np.exp(sigma * rng.standard_normal(ranks) - sigma**2 / 2).max() for _ in range(rows)]
    assert mean == pytest.approx(np.mean(drawn), abs=5 * np.std(drawn) / math.sqrt(rows) + 1e-6)
    assert spread == pytest.approx(np.std(drawn) / np.mean(drawn), rel=0.5)
    if ranks == 1:
        assert (mean, spread) == (pytest.approx(1, abs=1e-9), pytest.approx(0.1, rel=1e-6))
    assert noise.slowest(1e-4, 2)[0] == pytest.approx(1 + 1e-4 / math.sqrt(math.pi), abs=1e-7)
    assert noise.slowest(0.0, ranks) == (1.0, 0.0)


def test_messages_have_their_closed_forms():
    network = machine().network
    for nodes in (2, 16, 512):
        found = {
            name: collectives.allreduce(name, 1e8, nodes, 1, network)
            for name in ("ring", "tree", "rabenseifner", "hierarchical", "best")
        }
        alpha, beta, levels = network.latency, network.bandwidth, math.log2(nodes)
        volume = 2 * (nodes - 1) / nodes * 1e8 / beta
        assert found["ring"] == pytest.approx(2 * (nodes - 1) * alpha + volume)
        assert found["rabenseifner"] == pytest.approx(2 * levels * alpha + volume)
        assert found["hierarchical"] == pytest.approx(found["rabenseifner"])
        assert found["tree"] == pytest.approx(2 * levels * (alpha + 1e8 / beta))
        assert found["best"] == min(found.values())
    assert collectives.allreduce("best", 1e8, 1, 1, network) == 0
    # Few bytes: what counts is how often somebody waits for a message.
    small = {n: collectives.allreduce(n, 8, 1024, 1, network) for n in ("ring", "tree")}
    assert small["tree"] < small["ring"] / 50


@given(each=st.floats(1e-6, 10), backward=st.floats(1e-6, 10), buckets=st.integers(1, 64))
def test_buckets_hide_what_they_can(each, backward, buckets):
    """Against the buckets one by one; never less than the last one, never more than all."""
    free = 0.0
    for bucket in range(1, buckets + 1):
        free = max(free, backward * bucket / buckets) + each
    shown = collectives.exposed(each, backward, buckets)
    assert shown == pytest.approx(free - backward, rel=1e-9, abs=1e-9)
    assert each <= shown <= each * buckets * (1 + 1e-9)
    assert collectives.exposed(each, backward, 1) == each


@given(
    copies=st.sampled_from([1, 2, 4, 8, 10]),
    nodes=st.sampled_from([1, 2, 4, 8, 16, 40, 128, 1024, 16384]),
    ranks=st.sampled_from([1, 4, 8]),
    batch=st.sampled_from([256, 2048, 8192, 131072]),
    shards=st.sampled_from([0, 1024]),
)
@settings(max_examples=60, deadline=None)
def test_a_plan_keeps_the_rules(copies, nodes, ranks, batch, shards):
    """Parts add up, the result is not changed, memory fits; or it says why there is none."""
    made = work(multiplicity=copies, batch_size=batch, shards=shards)
    where = machine(node__ranks=ranks)
    found = plan(made, where, nodes)
    if found.best is None:
        assert found.reason
        return
    best = found.best
    layout = best.way.layout
    default = Layout(nodes * ranks, copies, batch)
    assert layout.ghost_batch == default.ghost_batch
    assert layout.batch_size * copies == layout.instances_per_rank * nodes * ranks
    assert best.memory <= where.node.memory
    assert sum(best.parts.values()) == pytest.approx(best.seconds)
    assert min(best.parts.values()) >= 0
    assert best.seconds >= max(best.input.storage, best.input.cores, best.input.exchange)
    # At least the whole batch, and an epoch at least once.
    assert best.input.bytes_read >= batch * made.record * (1 - 1e-9)
    seen = min(made.steps, made.epoch_steps) * batch * made.record
    assert best.bytes_read >= seen * (1 - 1e-9)
    assert best.expected >= best.hours * 3600
    for io, exchange in (("replicate", "encoded"), ("broadcast", "encoded")):
        other = predict(made, where, nodes, Way(layout, io, exchange))
        assert best.seconds <= other.seconds * 1.0101


def test_what_is_said_of_memory():
    """One that was asked for is not said to be the largest, and its own need is told."""
    tight = machine(node__memory=6e9)
    free, asked = (plan(work(multiplicity=4, **m), tight, 4) for m in ({}, {"microbatch": 32}))
    assert free.best.way.layout.microbatch == 64 and asked.best.way.layout.microbatch == 32
    assert "more than 64 instances at once do not fit in memory" in free.reason
    assert "do not fit" not in asked.reason
    needed = work().memory(256, 256) / 1e9
    refused = plan(work(multiplicity=4, microbatch=256), tight, 4)
    assert refused.best is None
    assert f"needs at least {needed:.3g} GB with a microbatch of 256" in refused.reason
    assert "; a smaller --microbatch, --recompute, or more ranks" in refused.reason
    least = plan(work(multiplicity=4, recompute=True), machine(node__memory=1e9), 4)
    assert "GB even with a microbatch of 32, and has 1 GB; more ranks" in least.reason


def test_what_a_slow_part_bounds():
    """Each part made slow is the one that is named, and its closed form is the step."""
    layout = Layout(16, 4, 256)
    way = Way(layout, "cooperative", "decoded")
    said = {
        "storage": (machine(storage__together=1e6), 256 * 114_700 / 1e6),
        "cores": (
            machine(input__augment=1.0, input__noise=0.0),
            # Decoding was measured with 500x375, and ImageNet's images have 400x350 in the mean.
            64 / 12 + 16 * 0.0026 * (400 * 350) / (500 * 375) / 12,
        ),
        "overhead": (machine(step__overhead=30.0, step__noise=0.0), None),
        "allreduce": (machine(network__latency=1.0), None),
        "exchange": (machine(network__bandwidth=1e7), None),
    }
    for name, (where, seconds) in said.items():
        made = predict(work(multiplicity=4), where, 16, way)
        assert made.bound in (name, "link"), name
        if seconds:
            assert made.seconds == pytest.approx(seconds, rel=0.12 if name == "storage" else 1e-6)
    # One opener of a thousand files a second, and 256 files a step.
    slow = predict(work(multiplicity=4), machine(storage__opens=100), 16, way)
    assert slow.bound == "storage" and slow.seconds >= 2.56
    shards = predict(work(multiplicity=4, shards=1024), machine(storage__opens=100), 16, way)
    assert shards.bound != "storage" and shards.input.opens == 0
    assert shards.opens == 16 * 1024


def test_more_work_takes_longer():
    """Monotone in everything that a machine has."""
    base = plan(work(multiplicity=4), machine(), 16).best.seconds
    for worse in (
        {"network__bandwidth": 1e8}, {"network__latency": 1e-2}, {"step__noise": 0.3},
        {"step__overhead": 1.0}, {"storage__together": 1e6}, {"storage__client": 1e6},
        {"storage__opens": 10}, {"input__augment": 1.0}, {"node__memory": 4e9},
    ):  # fmt: skip
        assert plan(work(multiplicity=4), machine(**worse), 16).best.seconds > base, worse
    for better in ({"step__noise": 0.0}, {"network__bandwidth": 1e11}, {"step__overhead": 0.0}):
        assert plan(work(multiplicity=4), machine(**better), 16).best.seconds < base, better


@pytest.mark.parametrize(
    ("ranks", "size", "io", "exchange", "decodes", "sent"),
    [
        # Groups of eight on two nodes of four: a seat's part, and each node decodes all 64 once.
        (4, 8, "cooperative", "encoded", 64 // 4, 64 * 114_700 + 2 * 64 * 420_000),
        (4, 8, "cooperative", "decoded", 64 // 8, 64 * 420_000),
        (4, 8, "broadcast", "encoded", 64, 64 * 114_700),
        # One rank a node: nobody to share samples with.
        (1, 8, "cooperative", "encoded", 64, 64 * 114_700),
        # A group on one node decodes its part whatever is asked for, and sends nothing.
        (8, 8, "cooperative", "encoded", 64 // 8, 64 * 420_000),
        (16, 8, "cooperative", "decoded", 64 // 8, 64 * 420_000),
        (8, 8, "broadcast", "encoded", 64, 64 * 114_700),
        # Groups end inside of nodes: their nodes have different numbers of lanes.
        (6, 8, "cooperative", "encoded", 64, 64 * 114_700),
        (4, 8, "replicate", "encoded", 64, 0),
    ],
)
def test_what_a_lane_decodes_and_what_is_counted_as_exchanged(
    ranks, size, io, exchange, decodes, sent
):
    """As `data/group/record_exchange.py` has it, in two groups of 64 samples."""
    where = machine(node__ranks=ranks, input__augment=0.0)
    layout = Layout(2 * size, size, 128, size)
    found = reading(work(multiplicity=size), where, layout, io, exchange)
    decode = where.input.decode * (400 * 350) / (500 * 375) / where.node.cores
    assert found.cores == pytest.approx(decodes * decode)
    assert found.bytes_sent == 2 * sent
    assert found.records == (16 * 64 if io == "replicate" else 128)
    if ranks % size == 0:
        assert found.link == 0 and found.exchange < 1e-4


def test_seats_of_a_node_send_side_by_side():
    """Each of four seats gathers a quarter of the records, all at a time: the link carries half."""
    where = machine(node__ranks=4, network__latency=0.0, network__inside_latency=0.0)
    made, layout = work(multiplicity=8), Layout(8, 8, 128, 8)
    found = reading(made, where, layout, "cooperative", "encoded")
    seconds = 128 * 114_700 / 2 / where.network.bandwidth
    assert (found.exchange, found.link) == pytest.approx((seconds, seconds))


def test_what_lies_in_memory_is_shared_and_decoded_as_it_is():
    """JPEGs in memory are decoded; a node's lanes share samples in memory in every mode."""
    made = work(dataset="synthetic-jpeg", train_samples=1000, multiplicity=4)
    where, layout = machine(input__augment=0.0), Layout(4, 4, 256)
    found = reading(made, where, layout, "cooperative", "decoded")
    assert found.cores == pytest.approx(256 / 4 * where.input.decode / where.node.cores)
    assert (found.storage, found.bytes_read, found.opens) == (0, 0, 0)
    assert found.exchange == pytest.approx(
        collectives.allgather(256 * 500 * 375 * 3, 4, 1.5e-6, 8e9), rel=1e-6
    )
    made = work(dataset="synthetic", train_samples=1000, multiplicity=4)
    assert reading(made, where, layout, "cooperative", "decoded").cores == 0


def test_gradients_are_sent_as_they_are_rounded():
    """Two bytes a gradient; statistics go as they are, and buckets are cut before."""
    facts = NETWORKS["resnet50"]
    assert work().message == 4 * (facts.parameters + facts.statistics)
    for kind in ("bf16", "fp16"):
        made = work(allreduce_dtype=kind)
        assert made.message == 2 * facts.parameters + 4 * facts.statistics
        assert made.buckets == work().buckets
    assert work(allreduce_dtype="fp32").message == work().message


def test_on_a_processor_the_input_takes_the_cores_of_the_step():
    where = machine(input__augment=0.03)
    gpu = predict(work(), where, 4, Way(Layout(4, 4, 256), "cooperative", "decoded"))
    where = dataclasses.replace(where, device="cpu")
    cpu = predict(work(), where, 4, Way(Layout(4, 4, 256), "cooperative", "decoded"))
    assert cpu.parts["compute"] == pytest.approx(gpu.parts["compute"] + gpu.input.cores)


def test_what_a_node_keeps_is_not_read_again():
    """One node that keeps all reads the dataset once; one that keeps nothing, every epoch."""
    made = work(epochs=5, train_samples=256 * 100)
    size = 25_600 * 114_700
    alone = Way(Layout(1, 4, 256, microbatch=64), "cooperative", "decoded")
    assert predict(made, machine(), 1, alone).bytes_read == pytest.approx(size)
    nothing = machine(node__cache=0.0)
    assert predict(made, nothing, 1, alone).bytes_read == pytest.approx(5 * size)
    half = machine(node__cache=size / 2)
    assert predict(made, half, 1, alone).bytes_read == pytest.approx(3 * size)
    # Of four nodes each sees a quarter of the samples an epoch: 1 - 0.75^e of them are there.
    four = Way(Layout(4, 1, 256), "cooperative", "decoded")
    expected = size * sum(0.75**epoch for epoch in range(5))
    found = predict(work(epochs=5, train_samples=25_600, multiplicity=1), machine(), 4, four)
    assert found.bytes_read == pytest.approx(expected)


def test_the_best_interval_is_the_best():
    """No other interval on a fine grid has a shorter expected run (within 0.1 %)."""
    for nodes, cost in ((16, 5.0), (512, 60.0), (16_384, 120.0), (100_000, 300.0)):
        lost = machine(failures__checkpoint=cost).failures
        between = failures.between_failures(lost, nodes)
        best = failures.best_interval(cost, between)
        found = failures.expected_seconds(1e6, best, lost, nodes)
        others = [
            failures.expected_seconds(1e6, best * f, lost, nodes) for f in np.geomspace(0.1, 10, 99)
        ]
        assert found <= min(others) * 1.001
        if between > 100 * cost:  # Young's is the first order of it
            assert best == pytest.approx(failures.young(cost, between), rel=0.15)
    assert failures.expected_seconds(1e6, 1e6, lost, 10**9) == math.inf


# --- other networks, other data -------------------------------------------------------------------


def test_other_networks_are_scaled_and_said_to_be():
    where = read_machine(PAPER)
    line, notes = step_time(work(), where)
    assert line == where.step_times["resnet50"]["fp32"] and notes == []
    line, notes = step_time(work(precision="fp16"), where)
    assert line == where.step_times["resnet50"]["fp32"] and "fp16 is as fast" in notes[0]
    line, notes = step_time(workload_of(recipe("mobilenet-imagenet")), where)
    ratio = MULTIPLY_ADDS["mobilenet"] / MULTIPLY_ADDS["resnet50"]
    assert line.instance == pytest.approx(ratio * 0.003845) and line.fixed == 0.02997
    assert "mobilenet" in notes[0] and "multiply-adds" in notes[0]
    line, _ = step_time(work(image_size=112), where)
    assert line.instance == pytest.approx(0.003845 / 4)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_planned_or_refused_in_a_line(name):
    where = read_machine(PAPER)
    try:
        made = workload_of(recipe(name))
        assert plan(made, where, 4).reason
        if not made.stored:
            found = plan(made, where, 1).best
            assert found is None or (found.bytes_read, found.input.storage) == (0, 0)
    except ConfigError as error:
        assert "network" in str(error) and name.split("-")[0] in ("transformer", "lstm")


@pytest.mark.parametrize(
    ("dataset", "side", "decoded"),
    [("digits", 8, 64), ("fashion_mnist", 28, 784), ("cifar10", 32, 3072), ("synthetic", 20, 1200)],
)
def test_images_in_memory_have_their_own_size(dataset, side, decoded):
    """A network of 28 pixels takes (side / 28)² of its time for them."""
    made = work("quickstart", dataset=dataset, image_size=20, train_samples=1000)
    assert (made.side, made.decoded, made.record, made.stored) == (side, decoded, 0, False)
    where = dataclasses.replace(machine(), step_times={"resnet8": {"fp32": StepTime(0.1, 0.2)}})
    assert step_time(made, where)[0] == StepTime(0.1, pytest.approx(0.2 * (side / 28) ** 2))
