"""Which gradients travel together: every variable once, the last first, none cut."""

import numpy as np
import pytest

from ba_dist.rules.buckets import buckets


def test_buckets_fill_up_from_the_last_variable():
    assert buckets([4, 1, 3, 2, 2], 4) == [[3, 4], [1, 2], [0]]
    assert buckets([4, 1, 3, 2, 2], 0) == [[0, 1, 2, 3, 4]]
    assert buckets([9, 1], 4) == [[1], [0]]
    assert buckets([1, 9, 1], 4) == [[2], [1], [0]]
    assert buckets([], 4) == [[]]


@pytest.mark.parametrize("seed", range(5))
def test_each_variable_is_in_one_bucket_and_no_bucket_could_take_more(seed):
    numbers = np.random.default_rng(seed)
    sizes = numbers.integers(1, 50, 200).tolist()
    limit = int(numbers.integers(1, 120))
    made = buckets(sizes, limit)
    assert [i for bucket in made for i in reversed(bucket)] == list(reversed(range(len(sizes))))
    for bucket, following in zip(made, made[1:], strict=False):
        filled = sum(sizes[i] for i in bucket)
        assert len(bucket) == 1 or filled <= limit
        assert filled + sizes[following[-1]] > limit
