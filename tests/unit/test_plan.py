"""How many steps, and what is due after which of them."""

from hypothesis import given
from hypothesis import strategies as st

from ba_dist.rules.plan import Plan

SIZES = st.integers(1, 12), st.integers(1, 60), st.integers(1, 4)


@given(*SIZES)
def test_every_step_belongs_to_one_epoch_and_the_last_is_evaluated(per_epoch, total, every):
    plan = Plan(per_epoch, total, every)
    epochs = [plan.epoch(done) for done in range(1, total + 1)]
    assert epochs == [step // per_epoch for step in range(total)]
    ends = [done for done in range(total + 1) if plan.ends_epoch(done)]
    assert ends == sorted({*range(per_epoch, total + 1, per_epoch), total})
    assert [done for done in range(total + 1) if plan.is_over(done)] == [total]
    evaluated = [done for done in ends if plan.evaluates(done)]
    assert evaluated[-1] == total
    assert all(done % (every * per_epoch) == 0 for done in evaluated[:-1])
    assert not any(plan.fills_epoch(done) for done in range(1, total + 1) if done % per_epoch)
