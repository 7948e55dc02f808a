"""The formulas of `ba_dist/planner` against events: within 5 % where both hold."""

import dataclasses
import math

import numpy as np
import pytest

from ba_dist.planner import Way, collectives, failures, noise, predict
from ba_dist.rules.layout import Layout

from .test_benchmarks import ROOT
from .test_planner import machine, work


@pytest.fixture
def simulator(monkeypatch):
    """The module beside the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import simulator

    return simulator


def made(simulator, world, *, compute, read, readers=0, serve=0.0, steps=120, prefetch=2):
    """(a run in groups of four, mean seconds of compute and of read) by their mean."""
    return simulator.Run(
        compute=simulator.draws(compute, 0.05, (world, steps), 1),
        read=simulator.draws(read, 0.2, (readers or world, steps), 2),
        group_size=4,
        exchange=0.01,
        allreduce=0.02,
        prefetch=prefetch,
        serve=serve,
    )


@pytest.mark.parametrize("prefetch", [1, 2, 5])
@pytest.mark.parametrize(
    ("compute", "read", "readers"), [(0.2, 0.05, 24), (0.05, 0.3, 24), (0.2, 0.2, 6)]
)
def test_events_and_arrays_are_the_same(simulator, compute, read, readers, prefetch):
    run = made(simulator, 24, compute=compute, read=read, readers=readers, prefetch=prefetch)
    np.testing.assert_allclose(simulator.by_arrays(run), simulator.by_events(run), rtol=1e-12)


def test_events_and_arrays_on_a_slow_filesystem(simulator):
    run = made(simulator, 24, compute=0.05, read=0.01, serve=0.02)
    events, arrays = simulator.by_events(run), simulator.by_arrays(run)
    assert simulator.seconds_of_a_step(events) == pytest.approx(24 * 0.02, rel=0.01)
    assert simulator.seconds_of_a_step(arrays) == pytest.approx(24 * 0.02, rel=0.01)


@pytest.mark.parametrize("world", [4, 16, 128, 1024, 100_000])
@pytest.mark.parametrize("deviation", [0.02, 0.2])
def test_waiting_for_the_slowest(simulator, world, deviation):
    steps = 400 if world <= 1024 else 40
    run = made(simulator, world, compute=0.3, read=0.01, steps=steps)
    run = dataclasses.replace(run, compute=simulator.draws(0.3, deviation, (world, steps), 3))
    seen = simulator.seconds_of_a_step(simulator.by_arrays(run))
    assert 0.3 * noise.slowest(deviation, world)[0] + 0.02 == pytest.approx(seen, rel=0.05)


@pytest.mark.parametrize("world", [4, 16, 128, 1024, 100_000])
@pytest.mark.parametrize("prefetch", [2, 4])
def test_readers_that_are_late(simulator, world, prefetch):
    steps = 400 if world <= 1024 else 60
    # With one batch ahead a gather holds up the next reading, and the formula is up to 12 % low.
    run = made(simulator, world, compute=0.05, read=0.3, steps=steps, prefetch=prefetch)
    seen = simulator.seconds_of_a_step(simulator.by_arrays(run))
    formula = 0.3 * noise.slowest(0.2 / (2 * prefetch + 1), world)[0]
    assert formula == pytest.approx(seen, rel=0.05)


def test_a_straggler_costs_what_it_is_late(simulator):
    """One rank of 1000 that is twice as slow: the step is its own, whoever the others are."""
    run = made(simulator, 1000, compute=0.3, read=0.01, steps=200)
    run.compute[500] *= 2
    seen = simulator.seconds_of_a_step(simulator.by_arrays(run))
    assert seen == pytest.approx(2 * 0.3 + 0.02, rel=0.01)


@pytest.mark.parametrize("world", [2, 16, 256])
def test_messages_one_by_one(simulator, world):
    at, net = np.zeros(world), (1e8, 1e-5, 1e9)
    seen = simulator.ring_allreduce(at, *net)
    assert collectives.ring(net[0], world, *net[1:]) == pytest.approx(seen, rel=1e-9)
    network = dataclasses.replace(machine().network, latency=1e-5, bandwidth=1e9)
    formula = collectives.allreduce("rabenseifner", 1e8, world, 1, network)
    seen = simulator.halving_allreduce(at, *net)
    assert formula == pytest.approx(seen, rel=1e-9)
    # Where ranks begin at different times, the last one decides, but for what was sent before.
    late = simulator.draws(1.0, 0.3, (world, 1), 4)[:, 0]
    seen = simulator.halving_allreduce(late, *net) - late.max()
    assert seen == pytest.approx(formula, rel=0.05)


@pytest.mark.parametrize("latency", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("nodes", [2, 16])
def test_buckets_one_by_one(simulator, nodes, latency):
    """What a step waits for the sums, counted by messages: each bucket has its own latency."""
    where = machine(network__latency=latency, network__bandwidth=1e9, step__noise=0.0)
    made, layout = work(multiplicity=1), Layout(nodes, 1, 256)
    line = where.step_times["resnet50"]["fp32"]
    backward = collectives.BACKWARD * line.seconds(layout.microbatch)
    for count in (1, 2, 7, 100):
        way = Way(layout, "cooperative", "decoded", count)
        formula = predict(made, where, nodes, way).parts["allreduce"]
        seen = simulator.buckets(made.message, nodes, latency, 1e9, backward=backward, count=count)
        assert formula == pytest.approx(seen, rel=1e-9)


@pytest.mark.parametrize("nodes", [16, 512, 4096, 16_384])
def test_failures_as_they_come(simulator, nodes):
    lost = machine(failures__checkpoint=60.0).failures
    between = failures.between_failures(lost, nodes)
    for factor in (0.5, 1.0, 3.0):
        interval = factor * failures.best_interval(60.0, between)
        work = interval * max(1, round(200_000 / interval))
        seen = simulator.with_failures(
            work, interval, checkpoint=60.0, restart=lost.restart, between=between,
            trials=400, seed=nodes,
        )  # fmt: skip
        formula = failures.expected_seconds(work, interval, lost, nodes)
        error = 4 * seen.std() / math.sqrt(len(seen))
        assert error < 0.05 * formula
        assert formula == pytest.approx(seen.mean(), abs=error + 1e-9)
