"""Who is called a straggler, and who is not."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ba_dist.comm.vote import Vote, hear, tell
from ba_dist.health.stragglers import (
    FACTOR,
    StragglerWatch,
    may_have_stragglers,
    slow_links,
    stragglers,
)


def found(waits, inputs, computes, step):
    columns = (np.array(column, np.float64) for column in (waits, inputs, computes))
    return [(s.rank, s.phase) for s in stragglers(*columns, step)]


def test_ten_times_slower_computing_is_named():
    assert found([0, 0, 0], [0.1] * 3, [0.1, 1.0, 0.1], 1.0) == [(1, "compute")]
    assert found([0, 0], [0.1] * 2, [1.0, 0.1], 1.0) == [(0, "compute")]


def test_slow_input_counts_only_while_training_waits_for_it():
    inputs = [0.1, 0.1, 1.0]
    assert found([0.8, 0.8, 0.8], inputs, [0.2] * 3, 1.0) == [(2, "input")]
    assert found([0.0, 0.0, 0.1], inputs, [0.9] * 3, 1.0) == []


def test_a_lane_that_reads_for_all_is_no_straggler():
    assert found([0.5, 0.5], [0.5, 0.0], [0.1, 0.1], 0.6) == []
    # Of two such lanes one can be.
    assert found([0.9] * 4, [0.9, 0.0, 0.1, 0.0], [0.1] * 4, 1.0) == [(0, "input")]


def test_small_losses_are_not_worth_a_word():
    assert found([0, 0], [0, 0], [0.001, 0.01], 1.0) == []


@given(st.lists(st.floats(0.5, 0.5 * FACTOR), min_size=1, max_size=20))
def test_ranks_that_differ_less_than_the_factor_are_never_named(computes):
    waits = [1.0] * len(computes)
    assert found(waits, computes, computes, max(computes)) == []


@given(st.integers(2, 30), st.data())
def test_one_slow_rank_is_always_named_alone(world, data):
    rank = data.draw(st.integers(0, world - 1))
    computes = [data.draw(st.floats(0.1, 0.12)) for _ in range(world)]
    computes[rank] *= 10
    assert found([0] * world, [0] * world, computes, max(computes)) == [(rank, "compute")]


class World:
    """The watches of some ranks, which tell each other by a histogram, as the step has it."""

    def __init__(self, ranks, **settings):
        self.watches = [StragglerWatch(**settings) for _ in range(ranks)]
        self.told = [()] * ranks
        self.gathered = 0

    def step(self, table):
        """A step of these seconds [ranks, 4]; what is found of those told before, on any rank."""
        _, paces = hear(sum(tell(Vote(seconds=told)) for told in self.told))
        before = self.told
        looks = [w.look(paces, lambda told: self.gather(before)) for w in self.watches]
        assert all(found == looks[0] for found in looks)
        assert len({w.links_suspected for w in self.watches}) == 1
        self.told = [w.add(row) for w, row in zip(self.watches, table, strict=True)]
        return looks[0]

    def gather(self, told):
        self.gathered += 1
        return np.array(told)

    @property
    def links_suspected(self):
        return self.watches[0].links_suspected


def table(slow, allreduce=0.0):
    return np.array([[0, 0, 0.1, allreduce], [0, 0, 1.0 if slow else 0.1, allreduce]])


def test_a_straggler_is_named_within_50_steps_once_until_it_recovers():
    world = World(2)
    named = [step for step in range(1, 101) if world.step(table(True))]
    assert len(named) == 1 and named[0] <= 50
    assert not any(world.step(table(False)) for _ in range(40))
    assert sum(bool(world.step(table(True))) for _ in range(60)) == 1


def test_one_long_step_is_a_hiccup():
    world = World(2, window=20)
    assert not any(world.step(table(step % 20 == 7)) for step in range(200))


def test_ranks_gather_only_when_one_may_be_slow():
    world = World(3)
    even = np.full((3, 4), 0.1)
    assert not any(world.step(even) for _ in range(200))
    assert world.gathered == 0
    slow = even.copy()
    slow[1, 2] = 1.0
    assert sum(len(world.step(slow)) for _ in range(46)) == 1
    assert world.gathered == 2 * 3  # two windows, on each of three ranks


def test_links_are_looked_at_now_and_then_while_the_network_takes_its_share():
    world = World(2)
    looks = []
    for step in range(1, 501):
        world.step(table(False, allreduce=0.3 if step > 100 else 0.01))
        looks += [step] * world.links_suspected
    assert 100 < looks[0] <= 150 and len(looks) == 2


_SECONDS = st.one_of(st.just(0.0), st.floats(1e-7, 1e4))


@given(st.lists(st.tuples(_SECONDS, _SECONDS, _SECONDS, _SECONDS), min_size=1, max_size=12))
def test_the_histogram_misses_no_straggler(rows):
    """Whoever is one by exact seconds is suspected by the bins."""
    told = [(*row, row[0] + row[2] + row[3]) for row in rows]
    _, paces = hear(sum(tell(Vote(seconds=seconds)) for seconds in told))
    exact = np.array(told)
    if stragglers(*exact.T[:3], float(exact[:, -1].max())):
        assert may_have_stragglers(paces)


def test_a_slow_link_is_that_of_the_host_which_is_slow_both_ways():
    hosts = ["a", "a", "b", "b", "c", "c", "d", "d"]
    seconds = np.array([0.001, 0.01] * 4)
    assert slow_links(seconds, hosts) == []
    seconds[[3, 5]] = 0.2  # from b to c, and from c to d
    (link,) = slow_links(seconds, hosts)
    assert (link.rank, link.phase, link.seconds, link.typical) == (4, "allreduce", 0.2, 0.01)


def test_two_hosts_share_one_link_and_one_host_has_none():
    assert slow_links(np.array([0.2, 0.2]), ["a", "b"]) == []
    assert slow_links(np.array([0.2, 0.001, 0.001]), ["a"] * 3) == []


@given(st.lists(st.integers(1, 4), min_size=3, max_size=12), st.data())
def test_whichever_host_is_slow_is_found(sizes, data):
    hosts = [f"node{i}" for i, size in enumerate(sizes) for _ in range(size)]
    bad = data.draw(st.integers(0, len(sizes) - 1))
    seconds = [
        0.001 if hosts[r] == hosts[(r + 1) % len(hosts)]
        else 0.3 if f"node{bad}" in (hosts[r], hosts[(r + 1) % len(hosts)])
        else 0.01
        for r in range(len(hosts))
    ]  # fmt: skip
    assert [hosts[s.rank] for s in slow_links(np.array(seconds), hosts)] == [f"node{bad}"]


def test_its_words():
    (straggler,) = stragglers(np.zeros(2), np.zeros(2), np.array([0.1, 1.0]), 1.0)
    assert str(straggler) == (
        "10.0 times slower than the others in compute (1 s a step, theirs 0.1 s)"
    )
