"""Faults on purpose: how they are asked for, and that others are left alone."""

import numpy as np
import pytest

from ba_dist.data.batch import Batch, Instances
from ba_dist.errors import ConfigError
from ba_dist.health.inject import Fault, InjectedFault, Injector, parse


def test_the_form():
    assert parse("") == []
    assert parse("nan@5:1,slow-input@7:0:0.5") == [
        Fault("nan", 5, 1),
        Fault("slow-input", 7, 0, 0.5),
    ]


@pytest.mark.parametrize("text", ["nan", "nan@5", "nan@x:1", "fire@5:1", "nan@5:1:", "nan@-1:0"])
def test_another_form_is_refused(text):
    with pytest.raises(ConfigError, match="expected FAULT@STEP:RANK"):
        parse(text)


def test_a_fault_is_at_its_step_on_its_rank():
    faults = parse("nan@5:1,raise@6:1")
    ids = np.arange(3)
    inputs = {"images": np.ones(3, np.uint8), "labels": ids}
    batch = Batch(0, 0, inputs, Instances(ids, ids, ids.astype(np.uint64)), ids[:0])
    other, mine = Injector(faults, 0), Injector(faults, 1)
    assert all(other.before_step(step, batch, []) is batch for step in range(1, 9))
    assert mine.before_step(4, batch, []) is batch
    spoilt = mine.before_step(5, batch, []).inputs
    assert np.isnan(spoilt["images"]).all() and np.array_equal(spoilt["labels"], ids)
    with pytest.raises(InjectedFault):
        mine.before_step(6, batch, [])


def test_a_source_without_faults_is_itself():
    source = object()
    assert Injector(parse("nan@5:0"), 0).source(source) is source
